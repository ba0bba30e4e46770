package tally;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.OutOfOrderSequenceException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Reads, processes and writes a batch per transaction. A poll is a batch: all that it returns belongs to this member's
 * partitions and no rebalance can happen before the next poll, so there is nothing of a revoked partition to drop; a
 * generation that is over all the same is refused by the group when the offsets are sent.
 */
final class Processor implements ConsumerRebalanceListener {
    private static final Duration POLL = Duration.ofMillis(200);
    private static final int LATE_MINUTES = 15;

    private final Options options;
    private final String out;
    private final String countsTopic;
    private final int abortEvery;
    private final KafkaConsumer<String, String> consumer;
    private final KafkaProducer<String, String> producer;
    private final Counts counts;
    private final ObjectMapper json = new ObjectMapper();
    private long transaction;
    private long committed;

    Processor(Options options) {
        this.options = options;
        out = options.text("out");
        countsTopic = options.text("counts");
        abortEvery = options.number("abort-every");
        consumer = new KafkaConsumer<>(consumerConfiguration(), new StringDeserializer(), new StringDeserializer());
        producer = new KafkaProducer<>(producerConfiguration(), new StringSerializer(), new StringSerializer());
        counts = new Counts(options);
    }

    private Properties consumerConfiguration() {
        var properties = options.client();
        properties.put("group.id", options.text("group"));
        properties.put("isolation.level", "read_committed");
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        if (options.given("group-protocol")) {
            // Of `consumer` sessions and heartbeats are the broker's to say.
            properties.put("group.protocol", options.text("group-protocol"));
        } else {
            properties.put("session.timeout.ms", "6000");
            properties.put("heartbeat.interval.ms", "1500");
        }
        properties.put("max.poll.interval.ms", "120000");
        properties.put("max.poll.records", options.text("batch"));
        return properties;
    }

    private Properties producerConfiguration() {
        var properties = options.client();
        properties.put("transactional.id", options.text("transactional-id"));
        properties.put("transaction.timeout.ms", "20000");
        properties.put("request.timeout.ms", "10000");
        properties.put("delivery.timeout.ms", "60000");
        properties.put("linger.ms", "2");
        return properties;
    }

    void run() throws Exception {
        producer.initTransactions();
        consumer.subscribe(List.of(options.text("in")), this);
        while (!Main.stopping) {
            var records = consumer.poll(POLL);
            if (!records.isEmpty()) {
                process(records);
            }
        }
        producer.close();
        consumer.close();
    }

    private void process(ConsumerRecords<String, String> records) throws Exception {
        transaction++;
        // Its generation is the one that the records were read in.
        var membership = consumer.groupMetadata();
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        records.forEach(r -> offsets.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1)));
        if (options.given("offsets-first")) {
            consumer.commitSync(offsets);
        }
        try {
            producer.beginTransaction();
            var draft = counts.new Draft();
            for (var record : records) {
                write(record, draft);
            }
            if (!options.given("offsets-first")) {
                producer.sendOffsetsToTransaction(offsets, membership);
            }
            if (transaction % abortEvery == 0) {
                producer.flush(); // so that the log really holds what nobody may see
                abort();
                Log.say("aborted");
                return;
            }
            producer.commitTransaction();
            draft.keep();
        } catch (ProducerFencedException | OutOfOrderSequenceException | AuthorizationException | TimeoutException e) {
            throw e; // A timeout says nothing about the outcome: the next start's initTransactions settles it.
        } catch (KafkaException e) {
            Log.line("transaction " + transaction + " failed: " + e);
            abort();
            return;
        }
        committed += records.count();
        Log.line("committed transaction " + transaction + " " + shown(offsets) + " generation " + membership.generationId());
        Log.say("committed " + committed);
    }

    private void write(ConsumerRecord<String, String> record, Counts.Draft draft) throws Exception {
        var flight = json.readTree(record.value());
        var answer = json.createObjectNode()
                .put("index", flight.get("index").intValue())
                .put("hour", Integer.parseInt(record.key()))
                .put("late", flight.get("delay").intValue() > LATE_MINUTES);
        var count = draft.next(record.partition(), record.key());
        var writer = options.text("transactional-id") + "/" + options.text("instance") + "/" + transaction;
        List<Header> headers = List.of(new RecordHeader("writer", writer.getBytes(StandardCharsets.UTF_8)));
        producer.send(new ProducerRecord<>(out, record.partition(), record.key(), answer.toString(), headers));
        producer.send(new ProducerRecord<>(countsTopic, record.partition(), record.key(), String.valueOf(count), headers));
    }

    /** Aborts and goes back to the committed offsets. What fails here ends the process: it must not go on from a guess. */
    private void abort() {
        producer.abortTransaction();
        var assignment = consumer.assignment();
        var stable = consumer.committed(assignment);
        for (var partition : assignment) {
            var offset = stable.get(partition);
            if (offset == null) {
                consumer.seekToBeginning(List.of(partition));
            } else {
                consumer.seek(partition, offset);
            }
        }
        Log.line("aborted transaction " + transaction + ", back to " + shown(stable));
    }

    /** The stable offsets come first: from then on no earlier owner's commit can appear behind the end that is restored to. */
    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        if (partitions.isEmpty()) {
            return;
        }
        Log.line("assigned " + shown(consumer.committed(Set.copyOf(partitions))));
        try {
            counts.restore(numbers(partitions));
        } catch (Exception e) {
            throw new KafkaException("counts not restored", e);
        }
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        Log.line("revoked " + partitions);
        counts.forget(numbers(partitions));
    }

    private static List<Integer> numbers(Collection<TopicPartition> partitions) {
        return partitions.stream().map(TopicPartition::partition).toList();
    }

    private static Map<Integer, Long> shown(Map<TopicPartition, OffsetAndMetadata> offsets) {
        Map<Integer, Long> shown = new TreeMap<>();
        offsets.forEach((partition, offset) -> shown.put(partition.partition(), offset == null ? null : Long.valueOf(offset.offset())));
        return shown;
    }
}
