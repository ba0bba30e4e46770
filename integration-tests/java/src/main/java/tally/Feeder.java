package tally;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/** Writes the flight records once each, in the job's shuffled order: record i of the topic is line 7919 i mod lines. */
final class Feeder {
    private static final long STRIDE = 7919;
    private static final int PARTITIONS = 6;
    private static final int REPORT_EVERY = 200;

    private final Options options;
    private int acknowledged;
    private volatile Exception failure;

    Feeder(Options options) {
        this.options = options;
    }

    void run() throws Exception {
        List<String> lines = Files.readAllLines(Path.of(options.text("data")));
        int count = options.number("count");
        try (var producer = new KafkaProducer<>(configuration(), new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < count && failure == null && !Main.stopping; i++) {
                producer.send(record(lines, (int) (STRIDE * i % lines.size())), this::onAcknowledged);
            }
            producer.flush();
        }
        if (failure != null) {
            throw failure;
        }
        if (!Main.stopping) {
            Log.say("done " + acknowledged);
        }
    }

    private Properties configuration() {
        boolean idempotent = !options.given("no-idempotence");
        var properties = options.client();
        properties.put("acks", "all");
        properties.put("enable.idempotence", String.valueOf(idempotent));
        // Without idempotence a second request in flight would change the order too: the control is to show duplicates alone.
        properties.put("max.in.flight.requests.per.connection", idempotent ? "5" : "1");
        properties.put("retries", String.valueOf(Integer.MAX_VALUE));
        properties.put("delivery.timeout.ms", "1200000");
        properties.put("max.block.ms", "1200000");
        properties.put("request.timeout.ms", "10000");
        properties.put("linger.ms", "5");
        return properties;
    }

    /** The line's own text is kept, so that numbers come out as they went in. */
    private ProducerRecord<String, String> record(List<String> lines, int index) {
        String line = lines.get(index);
        int time = line.indexOf("\"time\":") + "\"time\":".length();
        int hour = (int) Double.parseDouble(line.substring(time, line.indexOf('}', time)));
        String value = "{\"index\":" + index + "," + line.substring(1);
        return new ProducerRecord<>(options.text("topic"), hour % PARTITIONS, String.valueOf(hour), value);
    }

    /** Called by the producer's one network thread. */
    private void onAcknowledged(RecordMetadata metadata, Exception error) {
        if (error != null) {
            failure = error;
        } else if (++acknowledged % REPORT_EVERY == 0) {
            Log.say("sent " + acknowledged);
        }
    }
}
