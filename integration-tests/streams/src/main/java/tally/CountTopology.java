package tally;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.StreamPartitioner;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** One step with a store of counts: every input record becomes one record in each of the two output topics. */
final class CountTopology {
    private static final String STORE = "counts";
    private static final String OUT = "out";
    private static final String COUNTS = "counts-out";
    private static final int LATE_MINUTES = 15;

    private CountTopology() {}

    static Topology build(Map<String, String> options, AtomicLong processed) {
        // The input's own rule, so that outputs keep the partition of their input.
        StreamPartitioner<String, String> byHour =
                (topic, hour, value, partitions) -> Optional.of(Set.of(Integer.parseInt(hour) % partitions));
        var writer = options.get("transactional-id") + "/" + options.get("instance") + "/";
        var store = Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.String(), Serdes.Long())
                .withCachingDisabled()
                .withLoggingEnabled(Map.of());
        return new Topology()
                .addSource("in", options.get("in"))
                .addProcessor("count", () -> new Count(writer, processed), "in")
                .addStateStore(store, "count")
                .addSink(OUT, options.get("out"), byHour, "count")
                .addSink(COUNTS, options.get("counts"), byHour, "count");
    }

    private static final class Count implements Processor<String, String, String, String> {
        private final ObjectMapper json = new ObjectMapper();
        private final String writer;
        private final AtomicLong processed;
        private ProcessorContext<String, String> context;
        private KeyValueStore<String, Long> counts;

        Count(String writer, AtomicLong processed) {
            this.writer = writer;
            this.processed = processed;
        }

        @Override
        public void init(ProcessorContext<String, String> context) {
            this.context = context;
            counts = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, String> flight) {
            var before = counts.get(flight.key());
            long count = before == null ? 1 : before + 1;
            counts.put(flight.key(), count);
            // Transactions have no number that a processor could see; task and input offset name the record instead.
            var source = context.recordMetadata().orElseThrow();
            var header = writer + context.taskId() + "@" + source.offset();
            var headers = new RecordHeaders().add("writer", header.getBytes(StandardCharsets.UTF_8));
            context.forward(flight.withValue(answer(flight)).withHeaders(headers), OUT);
            context.forward(flight.withValue(String.valueOf(count)).withHeaders(headers), COUNTS);
            processed.incrementAndGet();
        }

        private String answer(Record<String, String> flight) {
            JsonNode fields;
            try {
                fields = json.readTree(flight.value());
            } catch (JsonProcessingException e) {
                throw new IllegalStateException("not a flight: " + flight.value(), e);
            }
            return json.createObjectNode()
                    .put("index", fields.get("index").intValue())
                    .put("hour", Integer.parseInt(flight.key()))
                    .put("late", fields.get("delay").intValue() > LATE_MINUTES)
                    .toString();
        }
    }
}
