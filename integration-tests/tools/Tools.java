// Runs the command lines of a scenario against one broker: the mains of Apache Kafka's tools in this JVM, one after the other,
// and kcat as a process of its own. What a command prints, with what differs from run to run masked, is written down as Kafka's
// answer or compared with it. The scenario's format is in integration-tests/README.md, "The tools that people have".
//
// A tool ends by Exit.exit, which here ends that command alone; what it prints afterwards is not looked at.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Exit;

public final class Tools {
    /** How long a condition of a scenario may take, or one command: only a failing one does. */
    private static final Duration DEADLINE = Duration.ofSeconds(120);

    /** A tool's name on the command line, its class, and the flag that it takes the broker's address with. */
    private record Tool(String main, String bootstrap) {}

    private static final Map<String, Tool> TOOLS = new LinkedHashMap<>();

    static {
        String tools = "org.apache.kafka.tools.";
        String server = "--bootstrap-server";
        TOOLS.put("kafka-broker-api-versions", new Tool(tools + "BrokerApiVersionsCommand", server));
        TOOLS.put("kafka-acls", new Tool(tools + "AclCommand", server));
        TOOLS.put("kafka-client-metrics", new Tool(tools + "ClientMetricsCommand", server));
        TOOLS.put("kafka-cluster", new Tool(tools + "ClusterTool", server));
        TOOLS.put("kafka-configs", new Tool("kafka.admin.ConfigCommand", server));
        TOOLS.put("kafka-console-consumer", new Tool(tools + "consumer.ConsoleConsumer", server));
        TOOLS.put("kafka-console-producer", new Tool(tools + "ConsoleProducer", server));
        TOOLS.put("kafka-console-share-consumer", new Tool(tools + "consumer.ConsoleShareConsumer", server));
        TOOLS.put("kafka-consumer-groups", new Tool(tools + "consumer.group.ConsumerGroupCommand", server));
        TOOLS.put("kafka-consumer-perf-test", new Tool(tools + "ConsumerPerformance", server));
        TOOLS.put("kafka-delegation-tokens", new Tool(tools + "DelegationTokenCommand", server));
        TOOLS.put("kafka-delete-records", new Tool(tools + "DeleteRecordsCommand", server));
        TOOLS.put("kafka-e2e-latency", new Tool(tools + "EndToEndLatency", server));
        TOOLS.put("kafka-features", new Tool(tools + "FeatureCommand", server));
        TOOLS.put("kafka-get-offsets", new Tool(tools + "GetOffsetShell", server));
        TOOLS.put("kafka-groups", new Tool(tools + "GroupsCommand", server));
        TOOLS.put("kafka-leader-election", new Tool(tools + "LeaderElectionCommand", server));
        TOOLS.put("kafka-log-dirs", new Tool(tools + "LogDirsCommand", server));
        TOOLS.put("kafka-metadata-quorum", new Tool(tools + "MetadataQuorumCommand", server));
        TOOLS.put("kafka-producer-perf-test", new Tool(tools + "ProducerPerformance", server));
        TOOLS.put("kafka-reassign-partitions", new Tool(tools + "reassign.ReassignPartitionsCommand", server));
        TOOLS.put("kafka-share-groups", new Tool(tools + "consumer.group.ShareGroupCommand", server));
        TOOLS.put("kafka-streams-groups", new Tool(tools + "streams.StreamsGroupCommand", server));
        TOOLS.put("kafka-topics", new Tool(tools + "TopicCommand", server));
        TOOLS.put("kafka-transactions", new Tool(tools + "TransactionsCommand", server));
        TOOLS.put("kafka-verifiable-consumer", new Tool(tools + "VerifiableConsumer", server));
        TOOLS.put("kafka-verifiable-producer", new Tool(tools + "VerifiableProducer", server));
    }

    /** One command of a scenario: its modifiers, its words, its standard input. */
    private static final class Command {
        final String line;
        final List<String> words;
        final StringBuilder input = new StringBuilder();
        boolean sorted;
        boolean some;
        boolean numbers;
        Pattern until;
        Pattern only;
        final Map<Pattern, String> masks = new LinkedHashMap<>();

        Command(String line) {
            this.line = line;
            this.words = split(line);
        }
    }

    private static final class Exited extends Error {
        Exited() {
            super("the tool has ended", null, false, false);
        }
    }

    /** What one command printed: taken until it ends, and no byte more. */
    private static final class Capture extends OutputStream {
        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        private Integer status;
        private boolean closed;

        @Override
        public synchronized void write(int b) {
            if (!closed) bytes.write(b);
        }

        @Override
        public synchronized void write(byte[] from, int offset, int length) {
            if (!closed) bytes.write(from, offset, length);
        }

        synchronized void end(int code) {
            if (status == null) status = code;
            closed = true;
        }

        /** The shutdown hooks may speak. */
        synchronized void reopen() {
            closed = false;
        }

        synchronized String text() {
            return bytes.toString(StandardCharsets.UTF_8) + "exit " + status;
        }
    }

    private static volatile Capture capture = new Capture();
    private static volatile InputStream input = InputStream.nullInputStream();
    private static final PrintStream OUT = System.out;

    private final String bootstrap;
    private final String data;
    private final List<String> kcat;
    private final Path files;
    private final Map<String, KafkaProducer<String, String>> transactions = new HashMap<>();
    private final Map<String, Member> members = new HashMap<>();

    private Tools(String bootstrap, String data, List<String> kcat, Path work) throws IOException {
        this.bootstrap = bootstrap;
        this.data = data;
        this.kcat = kcat;
        this.files = Files.createTempDirectory(work, "files");
    }

    public static void main(String[] args) {
        boolean good = false;
        try {
            good = run(args);
        } catch (Throwable error) {
            error.printStackTrace(OUT);
            OUT.println("tools: 0 passed, 1 failed, 0 skipped");
        }
        OUT.flush();
        // Some tools leave threads behind.
        Runtime.getRuntime().halt(good ? 0 : 1);
    }

    private static boolean run(String[] args) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int at = 0; at + 1 < args.length; at += 2) options.put(args[at], args[at + 1]);
        Path home = Path.of(options.get("--home"));
        takeOver();
        List<String> kcat = options.getOrDefault("--kcat", "").isEmpty() ? List.of() : List.of(options.get("--kcat").split("\n"));
        boolean write = "true".equals(options.get("--write"));
        int passed = 0;
        int failed = 0;
        int skipped = 0;
        for (String name : options.get("--scenarios").split(",")) {
            long begin = System.nanoTime();
            List<Command> commands = read(home.resolve("scenarios").resolve(name + ".txt"));
            Transcript result;
            try (Broker broker = Broker.start(options)) {
                Tools tools = new Tools(broker.address, broker.data.toString(), kcat, Path.of(options.get("--work")));
                tools.makeInternalTopics();
                result = tools.run(commands);
                tools.close();
            }
            skipped += result.skipped;
            Path reference = home.resolve("reference").resolve(name + ".txt");
            if (write) {
                Files.writeString(reference, result.text());
                passed += result.answers.size();
            } else {
                Path listed = home.resolve("tally").resolve(name + ".txt");
                Verdict verdict = Verdict.of(commands, result, Transcript.read(reference), Transcript.read(listed));
                if ("true".equals(options.get("--list"))) {
                    if (verdict.different.answers.isEmpty()) Files.deleteIfExists(listed);
                    else Files.writeString(listed, verdict.different.text());
                }
                verdict.complaints.forEach(OUT::println);
                passed += verdict.passed;
                failed += verdict.failed;
            }
            OUT.printf("%s: %d commands, %.1f s%n", name, result.answers.size(), (System.nanoTime() - begin) / 1e9);
        }
        OUT.printf("tools: %d passed, %d failed, %d skipped%n", passed, failed, skipped);
        return failed == 0 && passed > 0;
    }

    /** A broker of the scenario's own, or the one that is there already. */
    private static final class Broker implements AutoCloseable {
        final String address;
        final Path data;
        private final Process process;

        private Broker(String address, Path data, Process process) {
            this.address = address;
            this.data = data;
            this.process = process;
        }

        static Broker start(Map<String, String> options) throws Exception {
            if (options.containsKey("--broker")) return new Broker(options.get("--broker"), Path.of("/nowhere"), null);
            Path home = Files.createTempDirectory(Path.of(options.get("--work")), "broker");
            Path port = home.resolve("port");
            Path log = home.resolve("log");
            List<String> line = new ArrayList<>(List.of(options.get("--start").split("\n")));
            line.addAll(List.of("--data", home.resolve("data").toString(), "--port-file", port.toString()));
            Process process = new ProcessBuilder(line).redirectErrorStream(true).redirectOutput(log.toFile()).start();
            long deadline = System.nanoTime() + DEADLINE.toNanos();
            while (!Files.exists(port) && process.isAlive() && System.nanoTime() < deadline) process.waitFor(50, TimeUnit.MILLISECONDS);
            if (!Files.exists(port)) {
                process.destroyForcibly();
                throw new IOException("the broker did not start: " + Files.readString(log));
            }
            return new Broker(Files.readString(port).trim(), home.resolve("data"), process);
        }

        @Override
        public void close() throws InterruptedException {
            if (process != null) process.destroyForcibly().waitFor();
        }
    }

    /** Puts this program between the tools and the JVM's ways in and out. */
    private static void takeOver() {
        OutputStream toCapture = new OutputStream() {
            @Override
            public void write(int b) {
                capture.write(b);
            }

            @Override
            public void write(byte[] from, int offset, int length) {
                capture.write(from, offset, length);
            }
        };
        System.setOut(new PrintStream(toCapture, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(toCapture, true, StandardCharsets.UTF_8));
        System.setIn(new InputStream() {
            @Override
            public int read() throws IOException {
                return input.read();
            }

            @Override
            public int read(byte[] into, int offset, int length) throws IOException {
                return input.read(into, offset, length);
            }
        });
        Exit.Procedure end = (code, message) -> {
            if (message != null) System.err.println(message);
            capture.end(code);
            throw new Exited();
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
    }

    /** Kafka makes them when they are first asked for, Tally at its first start. */
    private void makeInternalTopics() throws Exception {
        try (Admin admin = Admin.create(client("tools"))) {
            admin.describeClassicGroups(List.of("none")).all().toCompletionStage()
                .handle((found, error) -> null).toCompletableFuture().get();
            admin.describeTransactions(List.of("none")).all().toCompletionStage()
                .handle((found, error) -> null).toCompletableFuture().get();
        }
    }

    // --- scenarios ---------------------------------------------------------------------------------------------------

    private static List<Command> read(Path file) throws IOException {
        List<Command> commands = new ArrayList<>();
        List<String> modifiers = new ArrayList<>();
        for (String line : Files.readAllLines(file)) {
            if (line.isBlank() || line.startsWith("#")) continue;
            if (line.startsWith("@")) {
                modifiers.add(line.substring(1));
            } else if (line.startsWith("<")) {
                commands.get(commands.size() - 1).input.append(line.substring(Math.min(2, line.length()))).append('\n');
            } else {
                Command command = new Command(line);
                for (String modifier : modifiers) modify(command, modifier);
                modifiers.clear();
                commands.add(command);
            }
        }
        return commands;
    }

    private static void modify(Command command, String modifier) {
        String[] parts = modifier.split(" ", 2);
        switch (parts[0]) {
            case "sorted" -> command.sorted = true;
            case "some" -> command.some = true;
            case "numbers" -> command.numbers = true;
            case "until" -> command.until = Pattern.compile(parts[1], Pattern.DOTALL);
            case "mask" -> {
                String[] both = parts[1].split(" => ", 2);
                command.masks.put(Pattern.compile(both[0], Pattern.MULTILINE), both[1]);
            }
            case "only" -> command.only = Pattern.compile(parts[1]);
            default -> throw new IllegalArgumentException("no modifier @" + modifier);
        }
    }

    /** Words, where single quotes keep spaces. */
    private static List<String> split(String line) {
        List<String> words = new ArrayList<>();
        Matcher matcher = Pattern.compile("(?:[^\\s']|'[^']*')+").matcher(line);
        while (matcher.find()) words.add(matcher.group().replace("'", ""));
        return words;
    }

    private Transcript run(List<Command> commands) throws Exception {
        Transcript transcript = new Transcript();
        for (Command command : commands) {
            if (command.words.get(0).equals("kcat") && kcat.isEmpty()) {
                transcript.skipped++;
                continue;
            }
            if (builtin(command)) continue;
            long deadline = System.nanoTime() + DEADLINE.toNanos();
            String answer;
            do {
                answer = mask(command, once(command));
            } while (command.until != null && !command.until.matcher(answer).find() && System.nanoTime() < deadline);
            transcript.add(command.line, answer);
        }
        return transcript;
    }

    private String once(Command command) throws Exception {
        String name = command.words.get(0);
        List<String> arguments = new ArrayList<>();
        for (String word : command.words.subList(1, command.words.size())) {
            arguments.add(filled(word));
        }
        return name.equals("kcat") ? process(arguments, command) : tool(name, arguments, command);
    }

    private String filled(String text) {
        return text.replace("{bootstrap}", bootstrap).replace("{files}", files.toString());
    }

    private String tool(String name, List<String> arguments, Command command) throws Exception {
        Tool tool = TOOLS.get(name);
        if (tool == null) throw new IllegalArgumentException("no tool " + name);
        if (!command.line.contains("{bootstrap}")) {
            // Tools with sub-commands take it behind or before them: before, all of them do but kafka-cluster.
            int at = name.equals("kafka-cluster") ? 1 : 0;
            arguments.addAll(Math.min(at, arguments.size()), List.of(tool.bootstrap, bootstrap));
        }
        Capture own = new Capture();
        capture = own;
        input = new ByteArrayInputStream(command.input.toString().getBytes(StandardCharsets.UTF_8));
        Thread runner = new Thread(() -> {
            try {
                Class.forName(tool.main).getMethod("main", String[].class).invoke(null, (Object) arguments.toArray(String[]::new));
                own.end(0);
            } catch (InvocationTargetException error) {
                if (!(error.getCause() instanceof Exited)) error.getCause().printStackTrace();
                own.end(1);
            } catch (ReflectiveOperationException error) {
                throw new IllegalStateException(error);
            }
        }, name);
        runner.start();
        runner.join(DEADLINE.toMillis());
        if (runner.isAlive()) {
            System.err.println("did not end");
            own.end(124);
            runner.interrupt();
        }
        own.reopen();
        for (Thread hook : shutdownHooks()) {
            Runtime.getRuntime().removeShutdownHook(hook);
            hook.start();
            hook.join(DEADLINE.toMillis());
        }
        own.end(0);
        return own.text();
    }

    /** What the JVM would do at its end: some producers send their last batch there. (`--add-opens java.base/java.lang=ALL-UNNAMED`) */
    @SuppressWarnings("unchecked")
    private static List<Thread> shutdownHooks() throws ReflectiveOperationException {
        Field field = Class.forName("java.lang.ApplicationShutdownHooks").getDeclaredField("hooks");
        field.setAccessible(true);
        return new ArrayList<>(((Map<Thread, Thread>) field.get(null)).keySet());
    }

    private String process(List<String> arguments, Command command) throws Exception {
        List<String> line = new ArrayList<>(kcat);
        line.addAll(arguments);
        if (!command.line.contains("{bootstrap}")) line.addAll(kcat.size(), List.of("-b", bootstrap));
        File in = Files.writeString(files.resolve("stdin"), command.input).toFile();
        File out = files.resolve("stdout").toFile();
        Process process = new ProcessBuilder(line).redirectInput(in).redirectErrorStream(true).redirectOutput(out).start();
        boolean ended = process.waitFor(DEADLINE.toSeconds(), TimeUnit.SECONDS);
        if (!ended) process.destroyForcibly().waitFor();
        return Files.readString(out.toPath()) + "exit " + (ended ? process.exitValue() : 124);
    }

    // --- what a scenario needs besides tools -------------------------------------------------------------------------

    /** `begin ID TOPIC`, `commit ID`, `join GROUP TOPIC CLIENT [PROTOCOL]`, `leave CLIENT`, `file NAME`. */
    private boolean builtin(Command command) throws Exception {
        List<String> words = command.words;
        switch (words.get(0)) {
            case "begin" -> {
                Properties properties = client(words.get(1));
                properties.put("transactional.id", words.get(1));
                // Longer than all the commands take until its end, on a busy machine too.
                properties.put("transaction.timeout.ms", "600000");
                KafkaProducer<String, String> producer =
                    new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
                producer.initTransactions();
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(words.get(2), 0, null, "in a transaction")).get();
                transactions.put(words.get(1), producer);
            }
            case "commit" -> {
                try (KafkaProducer<String, String> producer = transactions.remove(words.get(1))) {
                    producer.commitTransaction();
                }
            }
            case "join" -> {
                Properties properties = client(words.get(3));
                if (words.size() > 4) properties.put("group.protocol", words.get(4));
                members.put(words.get(3), new Member(properties, words.get(1), words.get(2)));
            }
            case "leave" -> members.remove(words.get(1)).close();
            case "file" -> Files.writeString(files.resolve(words.get(1)), filled(command.input.toString()));
            default -> {
                return false;
            }
        }
        return true;
    }

    private Properties client(String id) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("client.id", id);
        return properties;
    }

    /** A member of a group that reads and commits nothing. */
    private static final class Member implements AutoCloseable {
        private final KafkaConsumer<String, String> consumer;
        private final Thread poller;

        Member(Properties properties, String group, String topic) throws InterruptedException {
            properties.put("group.id", group);
            properties.put("enable.auto.commit", "false");
            consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
            consumer.subscribe(List.of(topic));
            CountDownLatch assigned = new CountDownLatch(1);
            poller = new Thread(() -> {
                try (consumer) {
                    while (true) {
                        consumer.poll(Duration.ofMillis(100));
                        if (!consumer.assignment().isEmpty()) assigned.countDown();
                    }
                } catch (WakeupException end) {
                    assigned.countDown();
                }
            });
            poller.start();
            if (!assigned.await(DEADLINE.toSeconds(), TimeUnit.SECONDS)) throw new IllegalStateException("no assignment");
        }

        @Override
        public void close() throws InterruptedException {
            consumer.wakeup();
            poller.join();
        }
    }

    private void close() throws InterruptedException {
        for (Member member : members.values()) member.close();
        for (KafkaProducer<String, String> producer : transactions.values()) producer.close(Duration.ZERO);
    }

    // --- what differs from run to run --------------------------------------------------------------------------------

    private String mask(Command command, String answer) {
        String text = answer.replace(bootstrap, "BROKER")
            .replace(data + "/logs", "DIR").replace(data, "DIR")
            .replaceAll("\\b" + bootstrap.split(":")[1] + "\\b", "PORT")
            .replace(files.toString(), "FILES")
            .replaceAll("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID")
            .replaceAll("console-consumer-\\d+", "console-consumer-N")
            .replaceAll("TopicId: \\S+", "TopicId: ID")
            .replaceAll("\\b\\d{4}-\\d\\d-\\d\\d[T ]\\d\\d:\\d\\d:\\d\\d\\S*", "DATE")
            .replaceAll("\\b1[7-9]\\d{11}\\b", "TIME")
            .replaceAll("(?m)^\\s+(at \\S+\\(.*\\)|\\.\\.\\. \\d+ more)$\n?", "")
            // Which error it is counts, not the words that a broker has for it.
            .replaceAll("(\\.errors\\.\\w+Exception): .+", "$1: ...")
            .replaceAll("(?m)^The consumer rebalance protocol .*\n", "")
            .replaceAll("(?m)^%4\\|.*Coordinator load in progress.*\n", "")
            .replaceAll("[ \t]+", " ")
            .replaceAll("(?m) $", "");
        if (command.numbers) text = text.replaceAll("(?m)(?<!exit )\\b\\d+(\\.\\d+)?(E-?\\d+)?\\b", "N");
        for (Map.Entry<Pattern, String> mask : command.masks.entrySet()) text = mask.getKey().matcher(text).replaceAll(mask.getValue());
        List<String> lines = new ArrayList<>(Arrays.asList(text.split("\n")));
        String exit = lines.remove(lines.size() - 1);
        // A tool that does not end its last line.
        int stuck = exit.lastIndexOf("exit ");
        if (stuck > 0) lines.add(exit.substring(0, stuck));
        if (command.only != null) lines.removeIf(line -> !command.only.matcher(line).find());
        if (command.sorted) lines.sort(null);
        lines.add(exit.substring(stuck));
        return String.join("\n", lines);
    }

    // --- answers and their comparison --------------------------------------------------------------------------------

    /** Commands with their answers, in order: `$ COMMAND`, the answer's lines, an empty line; `# REASON` before a command. */
    private static final class Transcript {
        final Map<String, List<String>> answers = new LinkedHashMap<>();
        final Map<String, String> reasons = new HashMap<>();
        int skipped;

        /** The same command twice is told apart by its number. */
        void add(String line, String answer) {
            String key = line;
            for (int again = 2; answers.containsKey(key); again++) key = line + " #" + again;
            answers.put(key, List.of(answer.split("\n", -1)));
        }

        String text() {
            return answers.entrySet().stream()
                .map(entry -> reasons.getOrDefault(entry.getKey(), "") + "$ " + entry.getKey() + "\n"
                    + entry.getValue().stream().map(line -> line.isEmpty() ? "\n" : "  " + line + "\n").collect(Collectors.joining()))
                .collect(Collectors.joining("\n"));
        }

        static Transcript read(Path file) throws IOException {
            Transcript transcript = new Transcript();
            if (!Files.exists(file)) return transcript;
            String key = null;
            StringBuilder reason = new StringBuilder();
            List<String> lines = null;
            for (String line : Files.readAllLines(file)) {
                if (line.startsWith("# ")) {
                    reason.append(line).append('\n');
                } else if (line.startsWith("$ ")) {
                    trim(lines);
                    key = line.substring(2);
                    lines = new ArrayList<>();
                    transcript.answers.put(key, lines);
                    transcript.reasons.put(key, reason.toString());
                    reason.setLength(0);
                } else if (lines != null) {
                    lines.add(line.startsWith("  ") ? line.substring(2) : line);
                }
            }
            trim(lines);
            return transcript;
        }

        private static void trim(List<String> lines) {
            while (lines != null && !lines.isEmpty() && lines.get(lines.size() - 1).isEmpty()) lines.remove(lines.size() - 1);
        }
    }

    private static final class Verdict {
        int passed;
        int failed;
        /** What is answered otherwise than by Kafka, with the reasons that are listed. */
        final Transcript different = new Transcript();
        final List<String> complaints = new ArrayList<>();

        static Verdict of(List<Command> commands, Transcript ours, Transcript kafka, Transcript listed) {
            Verdict verdict = new Verdict();
            Map<String, Command> byLine = new HashMap<>();
            for (Command command : commands) byLine.putIfAbsent(command.line, command);
            for (String key : listed.answers.keySet()) {
                if (!ours.answers.containsKey(key) && !key.startsWith("kcat")) verdict.complain(key, "listed as different, but not run");
                if (listed.reasons.get(key).isEmpty()) verdict.complain(key, "listed as different without a reason");
            }
            ours.answers.forEach((key, answer) -> {
                List<String> wanted = kafka.answers.get(key);
                List<String> different = listed.answers.get(key);
                Command command = byLine.get(key.replaceAll(" #\\d+$", ""));
                if (wanted != null && command.some) {
                    // Of those, only what Kafka has not is looked at, and listed.
                    List<String> own = new ArrayList<>(answer);
                    own.removeAll(wanted);
                    wanted = List.of();
                    answer = own;
                }
                boolean same = wanted != null && wanted.equals(answer);
                if (wanted != null && !same) {
                    verdict.different.answers.put(key, answer);
                    verdict.different.reasons.put(key, listed.reasons.getOrDefault(key, ""));
                }
                if (wanted == null) {
                    verdict.complain(key, "Kafka's answer is not there: make it with --reference");
                } else if (same && different != null) {
                    verdict.complain(key, "answered as Kafka does, but listed as different");
                } else if (same || answer.equals(different)) {
                    verdict.passed++;
                } else {
                    verdict.complain(key, difference(different == null ? wanted : different, answer));
                }
            });
            return verdict;
        }

        private void complain(String key, String what) {
            failed++;
            complaints.add("--- $ " + key + "\n" + what);
        }

        private static String difference(List<String> wanted, List<String> answer) {
            List<String> missing = new ArrayList<>(wanted);
            answer.forEach(missing::remove);
            List<String> more = new ArrayList<>(answer);
            wanted.forEach(more::remove);
            if (missing.isEmpty() && more.isEmpty()) return "another order:\n" + String.join("\n", answer);
            return missing.stream().map(line -> "- " + line + "\n").collect(Collectors.joining())
                + more.stream().map(line -> "+ " + line + "\n").collect(Collectors.joining());
        }
    }
}
