package tally;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/** The running count of each hour, for the partitions that this processor owns. The topic of counts is where they live. */
final class Counts {
    private static final Duration RESTORE_TIMEOUT = Duration.ofSeconds(60);

    private final String topic;
    private final Admin admin;
    private final KafkaConsumer<String, String> consumer;
    private final Map<Integer, Map<String, Long>> committed = new HashMap<>();

    Counts(Options options) {
        topic = options.text("counts");
        admin = Admin.create(options.client());
        var properties = options.client();
        properties.put("isolation.level", "read_committed");
        properties.put("enable.auto.commit", "false");
        properties.put("max.poll.records", "5000");
        consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    /**
     * Reads what earlier owners committed. The caller has already been told the partitions' stable offsets, so whatever those
     * offsets cover lies below the high watermark asked for here; the last stable offset would not do, it may still be held
     * back by the open transaction of an owner that is gone, in front of counts that a later owner committed.
     */
    void restore(Collection<Integer> partitions) throws Exception {
        List<TopicPartition> targets = partitions.stream().map(partition -> new TopicPartition(topic, partition)).toList();
        var ends = admin.listOffsets(
                        targets.stream().collect(Collectors.toMap(target -> target, target -> OffsetSpec.latest())),
                        new ListOffsetsOptions(IsolationLevel.READ_UNCOMMITTED))
                .all().get();
        consumer.assign(targets);
        consumer.seekToBeginning(targets);
        targets.forEach(target -> committed.put(target.partition(), new TreeMap<>()));
        long deadline = System.nanoTime() + RESTORE_TIMEOUT.toNanos();
        var open = new ArrayList<>(targets);
        while (!open.isEmpty()) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("counts not restored in time: " + open + " of " + ends);
            }
            for (var record : consumer.poll(Duration.ofMillis(100))) {
                committed.get(record.partition()).put(record.key(), Long.parseLong(record.value()));
            }
            open.removeIf(target -> consumer.position(target) >= ends.get(target).offset());
        }
        targets.forEach(target -> Log.line("restored " + target + " to " + ends.get(target).offset() + " " + committed.get(target.partition())));
    }

    void forget(Collection<Integer> partitions) {
        committed.keySet().removeAll(partitions);
    }

    /** The counts as one transaction sees them; {@link #keep} makes them the state, dropping the draft undoes them. */
    final class Draft {
        private final Map<Integer, Map<String, Long>> changed = new HashMap<>();

        long next(int partition, String hour) {
            long before = committed.get(partition).getOrDefault(hour, 0L);
            return changed.computeIfAbsent(partition, absent -> new HashMap<>())
                    .compute(hour, (key, count) -> (count == null ? before : count) + 1);
        }

        void keep() {
            changed.forEach((partition, counts) -> committed.get(partition).putAll(counts));
        }
    }
}
