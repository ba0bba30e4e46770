package tally;

import java.util.Arrays;
import java.util.Map;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.InvalidStateStoreException;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.QueryableStoreTypes;

/** Words, moved to a partition by word through a repartition topic, counted in a store with a changelog; every count is written. */
final class WordCountTopology {
    private static final String STORE = "counts";

    private WordCountTopology() {}

    static Topology build(Map<String, String> options) {
        var builder = new StreamsBuilder();
        builder.stream(options.get("in"), Consumed.with(Serdes.String(), Serdes.String()))
                .flatMapValues(line -> Arrays.asList(line.split("\\s+")))
                .groupBy((key, word) -> word, Grouped.with("by-word", Serdes.String(), Serdes.String()))
                .count(Materialized.as(STORE))
                .toStream()
                .mapValues(count -> String.valueOf(count))
                .to(options.get("out"), Produced.with(Serdes.String(), Serdes.String()));
        return builder.build();
    }

    /** Prints {@code table WORD COUNT} for each word of the store. The caller has waited until the application runs. */
    static void print(KafkaStreams streams) {
        try {
            var store = streams.store(StoreQueryParameters.fromNameAndType(STORE, QueryableStoreTypes.<String, Long>keyValueStore()));
            try (var all = store.all()) {
                all.forEachRemaining(entry -> System.out.println("table " + entry.key + " " + entry.value));
            }
        } catch (InvalidStateStoreException e) {
            e.printStackTrace();
        }
        System.out.flush();
    }
}
