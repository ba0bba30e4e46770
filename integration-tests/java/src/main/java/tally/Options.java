package tally;

import java.util.HashMap;
import java.util.Map;
import java.util.Properties;

/** {@code ROLE --name value ... --switch ...}: the flags of the contract, and the client properties that both roles share. */
final class Options {
    final String role;
    private final Map<String, String> values = new HashMap<>();

    Options(String[] args) {
        if (args.length == 0) {
            throw new IllegalArgumentException("usage: feeder|processor --name value ...");
        }
        role = args[0];
        for (int i = 1; i < args.length; i++) {
            if (args[i].equals("--no-idempotence") || args[i].equals("--offsets-first")) {
                values.put(args[i], "");
            } else if (args[i].startsWith("--") && i + 1 < args.length) {
                values.put(args[i], args[++i]);
            } else {
                throw new IllegalArgumentException("unexpected argument " + args[i]);
            }
        }
    }

    String text(String name) {
        var value = values.get("--" + name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is required");
        }
        return value;
    }

    int number(String name) {
        return Integer.parseInt(text(name));
    }

    boolean given(String name) {
        return values.containsKey("--" + name);
    }

    /** A broker that was killed is looked for often, so that the job spends its time working. */
    Properties client() {
        var properties = new Properties();
        properties.put("bootstrap.servers", text("bootstrap"));
        properties.put("reconnect.backoff.max.ms", "500");
        properties.put("retry.backoff.max.ms", "500");
        return properties;
    }
}
