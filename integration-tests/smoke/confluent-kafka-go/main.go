// The checks with confluent-kafka-go. The contract is in ../../README.md.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"tally/smoke"
)

const timeoutMs = 30_000

type client struct{ bootstrap, prefix string }

func main() {
	smoke.Run(func(bootstrap, prefix string) map[string]func() {
		c := client{bootstrap: bootstrap, prefix: prefix}
		return map[string]func(){
			"codec-none":               func() { c.codec("none") },
			"codec-gzip":               func() { c.codec("gzip") },
			"codec-snappy":             func() { c.codec("snappy") },
			"codec-lz4":                func() { c.codec("lz4") },
			"codec-zstd":               func() { c.codec("zstd") },
			"group-consume":            c.groupConsume,
			"group-rebalance":          c.groupRebalance,
			"idempotence":              c.idempotence,
			"transaction-commit-abort": c.transactionCommitAbort,
			"transaction-offsets":      c.transactionOffsets,
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

// Nothing here outlives its check by more than a call of the library.
func within() context.Context {
	context, cancel := context.WithTimeout(context.Background(), timeoutMs*time.Millisecond)
	time.AfterFunc(timeoutMs*time.Millisecond, cancel)
	return context
}

func (c *client) config(more kafka.ConfigMap) *kafka.ConfigMap {
	config := kafka.ConfigMap{"bootstrap.servers": c.bootstrap, "reconnect.backoff.max.ms": 500}
	maps.Copy(config, more)
	return &config
}

func (c *client) admin() *kafka.AdminClient {
	return smoke.Value(kafka.NewAdminClient(c.config(nil)))
}

func fine(err kafka.Error) {
	if err.Code() != kafka.ErrNoError {
		panic(err)
	}
}

func (c *client) topic(name string, partitions int) string {
	admin := c.admin()
	defer admin.Close()
	topic := c.prefix + "-" + name
	specification := kafka.TopicSpecification{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}
	fine(smoke.Value(admin.CreateTopics(within(), []kafka.TopicSpecification{specification}))[0].Error)
	return topic
}

func (c *client) producer(more kafka.ConfigMap) *kafka.Producer {
	config := kafka.ConfigMap{"acks": "all", "linger.ms": 2, "message.max.bytes": 2_000_000}
	maps.Copy(config, more)
	producer := smoke.Value(kafka.NewProducer(c.config(config)))
	if _, isTransactional := more["transactional.id"]; isTransactional {
		smoke.Must(producer.InitTransactions(within()))
	}
	return producer
}

func messages(topic string, partition int32, values []string) []*kafka.Message {
	messages := make([]*kafka.Message, len(values))
	for i, value := range values {
		to := kafka.TopicPartition{Topic: &topic, Partition: partition}
		messages[i] = &kafka.Message{TopicPartition: to, Value: []byte(value)}
	}
	return messages
}

func deliver(producer *kafka.Producer, messages ...*kafka.Message) {
	delivered := make(chan kafka.Event, len(messages))
	for _, message := range messages {
		smoke.Must(producer.Produce(message, delivered))
	}
	for range messages {
		message, isMessage := (<-delivered).(*kafka.Message)
		smoke.Expect("a delivery", isMessage, true)
		smoke.Must(message.TopicPartition.Error)
	}
}

func (c *client) send(config kafka.ConfigMap, messages ...*kafka.Message) {
	producer := c.producer(config)
	defer producer.Close()
	deliver(producer, messages...)
}

func (c *client) consumer(more kafka.ConfigMap) *kafka.Consumer {
	config := kafka.ConfigMap{
		"group.id": c.prefix + "-none", "auto.offset.reset": "earliest", "enable.auto.commit": false,
		"heartbeat.interval.ms": 300, "session.timeout.ms": 10_000, "fetch.wait.max.ms": 200,
	}
	maps.Copy(config, more)
	return smoke.Value(kafka.NewConsumer(c.config(config)))
}

func (c *client) member(topic string, more kafka.ConfigMap) *kafka.Consumer {
	config := kafka.ConfigMap{"group.id": topic}
	maps.Copy(config, more)
	consumer := c.consumer(config)
	smoke.Must(consumer.Subscribe(topic, nil))
	return consumer
}

// The next record, or nil. Errors that the library mends by itself are none.
func next(consumer *kafka.Consumer, timeoutMs int) *kafka.Message {
	switch event := consumer.Poll(timeoutMs).(type) {
	case *kafka.Message:
		smoke.Must(event.TopicPartition.Error)
		return event
	case kafka.Error:
		if event.IsFatal() {
			panic(event)
		}
	}
	return nil
}

// The next count records; then there must be no further one.
func take(consumer *kafka.Consumer, count int) []*kafka.Message {
	var got []*kafka.Message
	smoke.Until(fmt.Sprintf("%d records", count), func() bool {
		for len(got) < count {
			message := next(consumer, 200)
			if message == nil {
				return false
			}
			got = append(got, message)
		}
		return true
	})
	smoke.Expect("nothing more", next(consumer, 300) == nil, true)
	return got
}

func (c *client) read(topic string, count int, more kafka.ConfigMap) []*kafka.Message {
	consumer := c.consumer(more)
	defer consumer.Close()
	smoke.Must(consumer.Assign([]kafka.TopicPartition{{Topic: &topic, Offset: kafka.OffsetBeginning}}))
	return take(consumer, count)
}

func values(messages []*kafka.Message) []string {
	values := make([]string, len(messages))
	for i, message := range messages {
		values[i] = string(message.Value)
	}
	return values
}

func (c *client) codec(name string) {
	topic := c.topic("codec-"+name, 1)
	c.send(kafka.ConfigMap{"compression.type": name, "linger.ms": 100}, messages(topic, 0, smoke.Texts(200, 0))...)
	smoke.Expect("values", values(c.read(topic, 200, nil)), smoke.Texts(200, 0))
}

func (c *client) groupConsume() {
	topic := c.topic("group", 3)
	for i := range 3 {
		c.send(nil, messages(topic, int32(i), smoke.Texts(50, i*50))...)
	}
	first := c.member(topic, nil)
	got, wanted := values(take(first, 150)), smoke.Texts(150, 0)
	smoke.Value(first.Commit())
	smoke.Must(first.Close())
	slices.Sort(got)
	slices.Sort(wanted)
	smoke.Expect("values", got, wanted)
	c.send(nil, messages(topic, 1, smoke.Texts(10, 150))...)
	second := c.member(topic, nil)
	defer second.Close()
	smoke.Expect("values after the commit", values(take(second, 10)), smoke.Texts(10, 150))
}

func (c *client) groupRebalance() {
	topic := c.topic("rebalance", 4)
	producer := c.producer(nil)
	defer producer.Close()
	seen, sent := map[string]bool{}, 0
	drain := func(consumer *kafka.Consumer) {
		for message := next(consumer, 100); message != nil; message = next(consumer, 100) {
			seen[string(message.Value)] = true
		}
	}
	more := func() {
		for i := range 4 {
			deliver(producer, messages(topic, int32(i), smoke.Texts(10, sent))...)
			sent += 10
		}
	}
	shares := func(wanted int, consumers ...*kafka.Consumer) {
		smoke.Until(fmt.Sprintf("%d partitions for each", wanted), func() bool {
			all := true
			for _, consumer := range consumers {
				drain(consumer)
				all = all && len(smoke.Value(consumer.Assignment())) == wanted
			}
			return all
		})
	}
	first := c.member(topic, nil)
	defer first.Close()
	shares(4, first)
	more()
	second := c.member(topic, nil)
	shares(2, first, second)
	more()
	drain(first)
	drain(second)
	smoke.Must(second.Close())
	more()
	shares(4, first)
	smoke.Until("every record", func() bool { drain(first); return len(seen) == sent })
}

func (c *client) idempotence() {
	topic := c.topic("idempotence", 1)
	c.send(kafka.ConfigMap{"enable.idempotence": true}, messages(topic, 0, smoke.Texts(500, 0))...)
	smoke.Expect("values", values(c.read(topic, 500, nil)), smoke.Texts(500, 0))
}

func end(producer *kafka.Producer, commits bool) {
	if commits {
		smoke.Must(producer.CommitTransaction(within()))
	} else {
		smoke.Must(producer.AbortTransaction(within()))
	}
}

func (c *client) transactionCommitAbort() {
	topic := c.topic("transaction", 1)
	producer := c.producer(kafka.ConfigMap{"transactional.id": topic})
	defer producer.Close()
	for i, commits := range []bool{true, false, true} {
		smoke.Must(producer.BeginTransaction())
		deliver(producer, messages(topic, 0, smoke.Texts(5, 5*i))...)
		end(producer, commits)
	}
	committed := c.read(topic, 10, kafka.ConfigMap{"isolation.level": "read_committed"})
	smoke.Expect("read_committed", values(committed), append(smoke.Texts(5, 0), smoke.Texts(5, 10)...))
	everything := c.read(topic, 15, kafka.ConfigMap{"isolation.level": "read_uncommitted"})
	smoke.Expect("read_uncommitted", values(everything), smoke.Texts(15, 0))
}

func (c *client) transactionOffsets() {
	topic, out := c.topic("offsets-in", 1), c.topic("offsets-out", 1)
	c.send(nil, messages(topic, 0, smoke.Texts(20, 0))...)
	consumer := c.member(topic, nil)
	defer consumer.Close()
	take(consumer, 20)
	producer := c.producer(kafka.ConfigMap{"transactional.id": topic})
	defer producer.Close()
	for i, commits := range []bool{true, false} {
		smoke.Must(producer.BeginTransaction())
		deliver(producer, messages(out, 0, smoke.Texts(1, i))...)
		offsets := []kafka.TopicPartition{{Topic: &topic, Offset: kafka.Offset(10 * (i + 1))}}
		smoke.Must(producer.SendOffsetsToTransaction(within(), offsets, smoke.Value(consumer.GetConsumerGroupMetadata())))
		end(producer, commits)
	}
	committed := smoke.Value(consumer.Committed([]kafka.TopicPartition{{Topic: &topic}}, timeoutMs))
	smoke.Expect("committed offset", committed[0].Offset, kafka.Offset(10))
	smoke.Expect("output", values(c.read(out, 1, nil)), smoke.Texts(1, 0))
}

func (c *client) seek() {
	topic := c.topic("seek", 1)
	c.send(nil, messages(topic, 0, smoke.Texts(100, 0))...)
	consumer := c.consumer(nil)
	defer consumer.Close()
	smoke.Must(consumer.Assign([]kafka.TopicPartition{{Topic: &topic, Offset: kafka.OffsetBeginning}}))
	take(consumer, 100)
	for _, offset := range []kafka.Offset{42, 99, 7, 0} {
		smoke.Must(consumer.Seek(kafka.TopicPartition{Topic: &topic, Offset: offset}, timeoutMs))
		smoke.Expect("offset", take(consumer, 100-int(offset))[0].TopicPartition.Offset, offset)
	}
}

func (c *client) timestampLookup() {
	topic := c.topic("timestamps", 1)
	base := time.UnixMilli(time.Now().UnixMilli() - 100_000)
	stamped := messages(topic, 0, make([]string, 10))
	for i := range stamped {
		stamped[i].Timestamp = base.Add(time.Duration(i) * time.Second)
	}
	c.send(nil, stamped...)
	consumer := c.consumer(nil)
	defer consumer.Close()
	for after, offset := range map[int64]kafka.Offset{0: 0, 4500: 5, 9000: 9, 10_000: kafka.OffsetEnd} {
		at := []kafka.TopicPartition{{Topic: &topic, Offset: kafka.Offset(base.UnixMilli() + after)}}
		found := smoke.Value(consumer.OffsetsForTimes(at, timeoutMs))[0]
		smoke.Must(found.Error)
		smoke.Expect("offset", found.Offset, offset)
	}
	low, high, err := consumer.QueryWatermarkOffsets(topic, 0, timeoutMs)
	smoke.Must(err)
	smoke.Expect("ends", []int64{low, high}, []int64{0, 10})
}

func (c *client) one(name string, message kafka.Message) *kafka.Message {
	topic := c.topic(name, 1)
	message.TopicPartition = kafka.TopicPartition{Topic: &topic, Partition: 0}
	c.send(nil, &message)
	return c.read(topic, 1, nil)[0]
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
	smoke.Expect("headers", got, headers)
}

func (c *client) largeRecord() {
	value := make([]byte, 900_000)
	smoke.Value(rand.Read(value))
	got := c.one("large", kafka.Message{Key: []byte("k"), Value: value})
	smoke.Expect("same value", bytes.Equal(got.Value, value), true)
}

func (c *client) emptyRecord() {
	got := c.one("empty", kafka.Message{Key: []byte{}, Value: []byte{}})
	smoke.Expect("lengths", []int{len(got.Key), len(got.Value)}, []int{0, 0})
}

func (c *client) tombstone() {
	got := c.one("tombstone", kafka.Message{Key: []byte("k")})
	smoke.Expect("key", string(got.Key), "k")
	smoke.Expect("no value", got.Value == nil, true)
}

func (c *client) adminTopics() {
	topic := c.topic("admin", 3)
	admin := c.admin()
	defer admin.Close()
	metadata := smoke.Value(admin.GetMetadata(&topic, false, timeoutMs))
	smoke.Expect("partitions", len(metadata.Topics[topic].Partitions), 3)
	described := smoke.Value(admin.DescribeTopics(within(), kafka.NewTopicCollectionOfTopicNames([]string{topic})))
	fine(described.TopicDescriptions[0].Error)
	smoke.Expect("described partitions", len(described.TopicDescriptions[0].Partitions), 3)
	fine(smoke.Value(admin.DeleteTopics(within(), []string{topic}))[0].Error)
	smoke.Until("the topic's end", func() bool {
		_, isThere := smoke.Value(admin.GetMetadata(nil, true, timeoutMs)).Topics[topic]
		return !isThere
	})
}

func (c *client) adminConfig() {
	topic := c.topic("config", 1)
	admin := c.admin()
	defer admin.Close()
	resource := kafka.ConfigResource{Type: kafka.ResourceTopic, Name: topic}
	resource.Config = []kafka.ConfigEntry{{
		Name: "retention.ms", Value: "123456", IncrementalOperation: kafka.AlterConfigOpTypeSet,
	}}
	fine(smoke.Value(admin.IncrementalAlterConfigs(within(), []kafka.ConfigResource{resource}))[0].Error)
	resource.Config = nil
	described := smoke.Value(admin.DescribeConfigs(within(), []kafka.ConfigResource{resource}))[0]
	fine(described.Error)
	smoke.Expect("retention.ms", described.Config["retention.ms"].Value, "123456")
}

func (c *client) reconnect() {
	topic := c.topic("reconnect", 1)
	producer, consumer := c.producer(kafka.ConfigMap{"enable.idempotence": true}), c.member(topic, nil)
	defer producer.Close()
	defer consumer.Close()
	deliver(producer, messages(topic, 0, smoke.Texts(10, 0))...)
	take(consumer, 10)
	smoke.Value(consumer.Commit())
	smoke.RestartBroker()
	deliver(producer, messages(topic, 0, smoke.Texts(10, 10))...)
	smoke.Expect("values", values(take(consumer, 10)), smoke.Texts(10, 10))
	smoke.Expect("all values", values(c.read(topic, 20, nil)), smoke.Texts(20, 0))
}
