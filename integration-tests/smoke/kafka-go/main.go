// The checks with kafka-go. The contract is in ../../README.md.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"tally/smoke"
)

const maxBytes = 4_000_000

type client struct {
	bootstrap, prefix string
	admin             *kafka.Client
}

func main() {
	smoke.Run(func(bootstrap, prefix string) map[string]func() {
		c := client{bootstrap: bootstrap, prefix: prefix}
		c.admin = &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: 10 * time.Second}
		transactions := smoke.Skip("kafka-go's producer has no transactions")
		return map[string]func(){
			"codec-none":               func() { c.codec("none", 0) },
			"codec-gzip":               func() { c.codec("gzip", kafka.Gzip) },
			"codec-snappy":             func() { c.codec("snappy", kafka.Snappy) },
			"codec-lz4":                func() { c.codec("lz4", kafka.Lz4) },
			"codec-zstd":               func() { c.codec("zstd", kafka.Zstd) },
			"group-consume":            c.groupConsume,
			"group-rebalance":          c.groupRebalance,
			"idempotence":              smoke.Skip("kafka-go's producer is not idempotent"),
			"transaction-commit-abort": transactions,
			"transaction-offsets":      transactions,
			"seek":                     c.seek,
			"timestamp-lookup":         c.timestampLookup,
			"headers":                  c.headers,
			"large-record":             c.largeRecord,
			"empty-record":             c.emptyRecord,
			"tombstone":                c.tombstone,
			"admin-topics":             c.adminTopics,
			"admin-config":             c.adminConfig,
			"reconnect":                c.reconnect,
		}
	})
}

func within(limit time.Duration) context.Context {
	// The deadline ends it; the cancelling that must follow comes late, so that it can't be taken for something else.
	context, cancel := context.WithTimeout(context.Background(), limit)
	time.AfterFunc(limit+time.Second, cancel)
	return context
}

func (c *client) topic(name string, partitions int) string {
	topic := c.prefix + "-" + name
	created := smoke.Value(c.admin.CreateTopics(within(10*time.Second), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}},
	}))
	smoke.Must(created.Errors[topic])
	return topic
}

// The partition that a record is for travels in WriterData, as the library chooses the partition itself.
func (c *client) writer(topic string, codec kafka.Compression) *kafka.Writer {
	return &kafka.Writer{
		Addr:         kafka.TCP(c.bootstrap),
		Topic:        topic,
		RequiredAcks: kafka.RequireAll,
		BatchTimeout: 10 * time.Millisecond,
		BatchBytes:   maxBytes,
		Compression:  codec,
		ErrorLogger:  log.New(os.Stderr, "writer ", log.LstdFlags|log.Lmicroseconds),
		Balancer: kafka.BalancerFunc(func(message kafka.Message, _ ...int) int {
			partition, _ := message.WriterData.(int)
			return partition
		}),
	}
}

func messages(values []string, partition int) []kafka.Message {
	messages := make([]kafka.Message, len(values))
	for i, value := range values {
		messages[i] = kafka.Message{Value: []byte(value), WriterData: partition}
	}
	return messages
}

func (c *client) send(topic string, codec kafka.Compression, messages ...kafka.Message) {
	writer := c.writer(topic, codec)
	defer writer.Close()
	smoke.Must(writer.WriteMessages(within(30*time.Second), messages...))
}

func (c *client) reader(topic, group string) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers:           []string{c.bootstrap},
		Topic:             topic,
		GroupID:           group,
		StartOffset:       kafka.FirstOffset,
		MaxWait:           200 * time.Millisecond,
		MaxBytes:          maxBytes,
		HeartbeatInterval: 300 * time.Millisecond,
		JoinGroupBackoff:  100 * time.Millisecond,
		ErrorLogger:       log.New(os.Stderr, "reader ", log.LstdFlags|log.Lmicroseconds),
	})
}

// The next count records; then there must be no further one. The library leaves it to its user to go on after an error that passes.
func take(reader *kafka.Reader, count int) []kafka.Message {
	var got []kafka.Message
	for limit := within(30 * time.Second); len(got) < count; {
		message, err := reader.FetchMessage(limit)
		if err == nil {
			got = append(got, message)
		} else if limit.Err() != nil {
			panic(fmt.Errorf("%d of %d records came: %w", len(got), count, err))
		}
	}
	if message, err := reader.FetchMessage(within(300 * time.Millisecond)); err == nil {
		panic(fmt.Errorf("one record too many, at offset %d", message.Offset))
	}
	return got
}

func (c *client) read(topic string, count int) []kafka.Message {
	reader := c.reader(topic, "")
	defer reader.Close()
	return take(reader, count)
}

func values(messages []kafka.Message) []string {
	values := make([]string, len(messages))
	for i, message := range messages {
		values[i] = string(message.Value)
	}
	return values
}

func (c *client) codec(name string, codec kafka.Compression) {
	topic := c.topic("codec-"+name, 1)
	c.send(topic, codec, messages(smoke.Texts(200, 0), 0)...)
	smoke.Expect("values", values(c.read(topic, 200)), smoke.Texts(200, 0))
}

func (c *client) groupConsume() {
	topic := c.topic("group", 3)
	for i := range 3 {
		c.send(topic, 0, messages(smoke.Texts(50, i*50), i)...)
	}
	first := c.reader(topic, topic)
	got := take(first, 150)
	smoke.Must(first.CommitMessages(within(10*time.Second), got...))
	smoke.Must(first.Close())
	sorted, wanted := values(got), smoke.Texts(150, 0)
	slices.Sort(sorted)
	slices.Sort(wanted)
	smoke.Expect("values", sorted, wanted)
	c.send(topic, 0, messages(smoke.Texts(10, 150), 1)...)
	second := c.reader(topic, topic)
	defer second.Close()
	smoke.Expect("values after the commit", values(take(second, 10)), smoke.Texts(10, 150))
}

// The library does not show who has which partition: records go on until the second member has had some, and after it has left until
// the first has had one of every partition.
func (c *client) groupRebalance() {
	topic := c.topic("rebalance", 4)
	writer := c.writer(topic, 0)
	defer writer.Close()
	seen, sent := map[string]bool{}, 0
	drain := func(reader *kafka.Reader) (partitions map[int]bool) {
		partitions = map[int]bool{}
		for {
			message, err := reader.FetchMessage(within(200 * time.Millisecond))
			if errors.Is(err, context.DeadlineExceeded) {
				return partitions
			}
			if err != nil {
				log.Print("again: ", err)
				continue
			}
			seen[string(message.Value)] = true
			partitions[message.Partition] = true
		}
	}
	more := func() {
		for i := range 4 {
			smoke.Must(writer.WriteMessages(within(30*time.Second), messages(smoke.Texts(1, sent), i)...))
			sent++
		}
	}
	first := c.reader(topic, topic)
	defer first.Close()
	all := func() bool { more(); return len(drain(first)) == 4 }
	smoke.Until("all partitions for the first", all)
	second := c.reader(topic, topic)
	smoke.Until("partitions for both", func() bool { more(); a, b := len(drain(first)), len(drain(second)); return a > 0 && b > 0 })
	smoke.Must(second.Close())
	smoke.Until("all partitions for the first again", all)
	smoke.Until("every record", func() bool { drain(first); return len(seen) == sent })
}

func (c *client) seek() {
	topic := c.topic("seek", 1)
	c.send(topic, 0, messages(smoke.Texts(100, 0), 0)...)
	reader := c.reader(topic, "")
	defer reader.Close()
	for _, offset := range []int64{42, 99, 7, 0} {
		smoke.Must(reader.SetOffset(offset))
		smoke.Expect("offset", smoke.Value(reader.ReadMessage(within(30*time.Second))).Offset, offset)
	}
}

func (c *client) timestampLookup() {
	topic := c.topic("timestamps", 1)
	base := time.UnixMilli(time.Now().UnixMilli() - 100_000)
	stamped := messages(make([]string, 10), 0)
	for i := range stamped {
		stamped[i].Time = base.Add(time.Duration(i) * time.Second)
	}
	c.send(topic, 0, stamped...)
	lookup := func(request kafka.OffsetRequest) kafka.PartitionOffsets {
		response := smoke.Value(c.admin.ListOffsets(within(10*time.Second), &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{topic: {request}},
		}))
		smoke.Must(response.Topics[topic][0].Error)
		return response.Topics[topic][0]
	}
	// The time that the library gives with the offset is the one it was asked for.
	for after, offset := range map[time.Duration]int64{0: 0, 4500: 5, 9000: 9} {
		found := lookup(kafka.TimeOffsetOf(0, base.Add(after*time.Millisecond))).Offsets
		_, isThere := found[offset]
		smoke.Expect("found", []any{len(found), isThere}, []any{1, true})
	}
	_, isThere := lookup(kafka.TimeOffsetOf(0, base.Add(10*time.Second))).Offsets[-1]
	smoke.Expect("nothing past the end", isThere, true)
	smoke.Expect("beginning", lookup(kafka.FirstOffsetOf(0)).FirstOffset, int64(0))
	smoke.Expect("end", lookup(kafka.LastOffsetOf(0)).LastOffset, int64(10))
}

func (c *client) one(name string, message kafka.Message) kafka.Message {
	topic := c.topic(name, 1)
	c.send(topic, 0, message)
	return c.read(topic, 1)[0]
}

func (c *client) headers() {
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	headers := []kafka.Header{
		{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")},
		{Key: "empty", Value: []byte{}}, {Key: "null"}, {Key: "binary", Value: binary},
	}
	got := c.one("headers", kafka.Message{Value: []byte("x"), Headers: headers}).Headers
	smoke.Expect("headers", fmt.Sprint(got), fmt.Sprint(headers))
}

func (c *client) largeRecord() {
	value := make([]byte, 900_000)
	smoke.Value(rand.Read(value))
	got := c.one("large", kafka.Message{Key: []byte("k"), Value: value})
	smoke.Expect("same value", bytes.Equal(got.Value, value), true)
}

func (c *client) emptyRecord() {
	got := c.one("empty", kafka.Message{Key: []byte{}, Value: []byte{}})
	// The library reads what is empty and what is not there alike.
	smoke.Expect("lengths", []int{len(got.Key), len(got.Value)}, []int{0, 0})
}

func (c *client) tombstone() {
	got := c.one("tombstone", kafka.Message{Key: []byte("k")})
	smoke.Expect("key", string(got.Key), "k")
	smoke.Expect("no value", got.Value == nil, true)
}

func (c *client) adminTopics() {
	topic := c.topic("admin", 3)
	find := func() (found *kafka.Topic) {
		metadata := smoke.Value(c.admin.Metadata(within(10*time.Second), &kafka.MetadataRequest{}))
		for i := range metadata.Topics {
			if metadata.Topics[i].Name == topic {
				found = &metadata.Topics[i]
			}
		}
		return found
	}
	smoke.Expect("partitions", len(find().Partitions), 3)
	deleted := smoke.Value(c.admin.DeleteTopics(within(10*time.Second), &kafka.DeleteTopicsRequest{Topics: []string{topic}}))
	smoke.Must(deleted.Errors[topic])
	smoke.Until("the topic's end", func() bool { return find() == nil })
}

func (c *client) adminConfig() {
	topic := c.topic("config", 1)
	altered := smoke.Value(c.admin.IncrementalAlterConfigs(within(10*time.Second), &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{
				{Name: "retention.ms", Value: "123456", ConfigOperation: kafka.ConfigOperationSet},
			},
		}},
	}))
	smoke.Must(altered.Resources[0].Error)
	described := smoke.Value(c.admin.DescribeConfigs(within(10*time.Second), &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"retention.ms"}},
		},
	}))
	smoke.Must(described.Resources[0].Error)
	smoke.Expect("retention.ms", described.Resources[0].ConfigEntries[0].ConfigValue, "123456")
}

func (c *client) reconnect() {
	topic := c.topic("reconnect", 1)
	writer, reader := c.writer(topic, 0), c.reader(topic, "")
	defer writer.Close()
	defer reader.Close()
	smoke.Must(writer.WriteMessages(within(30*time.Second), messages(smoke.Texts(10, 0), 0)...))
	take(reader, 10)
	smoke.RestartBroker()
	smoke.Must(writer.WriteMessages(within(30*time.Second), messages(smoke.Texts(10, 10), 0)...))
	smoke.Expect("values", values(take(reader, 10)), smoke.Texts(10, 10))
	smoke.Expect("all values", values(c.read(topic, 20)), smoke.Texts(20, 0))
}
