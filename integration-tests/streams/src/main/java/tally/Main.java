package tally;

import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import sun.misc.Signal;

/**
 * The main job's processor (see ../README.md) as a Kafka Streams application with exactly_once_v2. Groups, offsets, transactions
 * and the restoring of the counts are the library's own business, so {@code --batch} and {@code --abort-every} mean nothing here
 * and {@code --offsets-first} cannot be had. In the role {@code word-count} it is the word count of scripts/applications, with the
 * same settings, and prints its table when it is told to end.
 */
public final class Main {
    /** Exit code of a processor that must be started again. */
    private static final int FATAL = 3;
    private static final String WORD_COUNT = "word-count";
    private static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(30);
    private static final long REPORT_EVERY_MS = 50;

    private static volatile boolean stopping;

    public static void main(String[] args) throws InterruptedException {
        Signal.handle(new Signal("TERM"), signal -> stopping = true);
        Map<String, String> options;
        try {
            options = options(args);
        } catch (IllegalArgumentException e) {
            System.err.println(e.getMessage());
            System.exit(2);
            return;
        }
        System.exit(run(options));
    }

    private static int run(Map<String, String> options) throws InterruptedException {
        var processed = new AtomicLong();
        boolean words = options.get("role").equals(WORD_COUNT);
        var topology = words ? WordCountTopology.build(options) : CountTopology.build(options, processed);
        var streams = new KafkaStreams(topology, configuration(options));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((now, before) -> System.err.println("state " + before + " to " + now));
        streams.start();
        long reported = 0;
        while (!stopping && streams.state() != KafkaStreams.State.ERROR) {
            Thread.sleep(REPORT_EVERY_MS);
            // The library does not tell when it commits: this is what has been processed since the start.
            long now = processed.get();
            if (now != reported) {
                System.out.println("committed " + now);
                System.out.flush();
                reported = now;
            }
        }
        if (words && stopping) {
            for (long waited = 0; streams.state() != KafkaStreams.State.RUNNING && waited < CLOSE_TIMEOUT.toMillis(); waited += REPORT_EVERY_MS) {
                Thread.sleep(REPORT_EVERY_MS);
            }
            WordCountTopology.print(streams);
        }
        boolean closed = streams.close(CLOSE_TIMEOUT);
        return stopping && closed ? 0 : FATAL;
    }

    private static Properties configuration(Map<String, String> options) {
        var properties = new Properties();
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("bootstrap"));
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("group"));
        properties.put(StreamsConfig.CLIENT_ID_CONFIG, options.get("transactional-id"));
        // Kept between starts: the identity in it makes a new process fence the one that was killed.
        properties.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(options.getOrDefault("state-dir", "state")).toAbsolutePath().toString());
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        properties.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        properties.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        properties.put(StreamsConfig.RECONNECT_BACKOFF_MAX_MS_CONFIG, 500);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 6000);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG), 1500);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG), options.getOrDefault("transaction-timeout-ms", "20000"));
        return properties;
    }

    private static Map<String, String> options(String[] args) {
        if (args.length == 0 || !(args[0].equals("processor") || args[0].equals(WORD_COUNT))) {
            throw new IllegalArgumentException("usage: processor|word-count --name value ... (feeder is a role of the Java client)");
        }
        var options = new HashMap<String, String>();
        options.put("role", args[0]);
        for (int i = 1; i < args.length; i += 2) {
            if (!args[i].startsWith("--") || i + 1 == args.length || args[i].equals("--offsets-first")) {
                throw new IllegalArgumentException("unexpected argument " + args[i]);
            }
            options.put(args[i].substring(2), args[i + 1]);
        }
        var required = new ArrayList<>(List.of("bootstrap", "group", "transactional-id", "in", "out"));
        if (args[0].equals("processor")) {
            required.addAll(List.of("counts", "instance"));
        }
        for (var name : required) {
            if (!options.containsKey(name)) {
                throw new IllegalArgumentException("--" + name + " is required");
            }
        }
        return options;
    }
}
