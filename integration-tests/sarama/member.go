package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

const (
	batchMax   = 5
	abortEvery = 6
	// What a member that was killed has left open keeps its partitions' offsets back for as long.
	transactionTimeout = 6 * time.Second
)

// A member of a group that reads, processes and writes in transactions; each partition has a producer of its own.
type member struct {
	bootstrap              []string
	id, out, input, group  string
	admin                  sarama.ClusterAdmin
	transactions, finished atomic.Int64
}

func runMember(arguments []string) {
	flags := flag.NewFlagSet("member", flag.ExitOnError)
	bootstrap := flags.String("bootstrap", "", "")
	m := member{}
	flags.StringVar(&m.id, "transactional-id", "", "")
	flags.StringVar(&m.out, "out", "", "")
	flags.StringVar(&m.input, "in", "", "")
	flags.StringVar(&m.group, "group", "", "")
	if err := flags.Parse(arguments); err != nil {
		log.Fatal(err)
	}
	sarama.Logger = log.New(os.Stderr, "", log.LstdFlags|log.Lmicroseconds)
	m.bootstrap = strings.Split(*bootstrap, ",")
	if err := m.run(); err != nil {
		log.Print("fatal: ", err)
		os.Exit(3)
	}
}

func (m *member) run() error {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.ClientID = m.id
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Rebalance.Timeout = 10 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	config.Metadata.Retry.Max = 20
	admin, err := sarama.NewClusterAdmin(m.bootstrap, config)
	if err != nil {
		return err
	}
	m.admin = admin
	group, err := sarama.NewConsumerGroup(m.bootstrap, m.group, config)
	if err != nil {
		return err
	}
	running, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for running.Err() == nil {
		// Comes back with each rebalance.
		if err := group.Consume(running, []string{m.input}, m); err != nil && running.Err() == nil {
			log.Print("consume: ", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	return group.Close()
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	claimed := []string{}
	for _, partition := range session.Claims()[m.input] {
		claimed = append(claimed, fmt.Sprint(partition))
	}
	slices.Sort(claimed)
	fmt.Println("assigned", strings.Join(claimed, ","))
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	w := worker{member: m, partition: claim.Partition()}
	defer w.close()
	for {
		batch, open := next(claim.Messages())
		for len(batch) > 0 && session.Context().Err() == nil {
			rest, err := w.process(batch)
			if err != nil {
				log.Printf("partition %d: %v", w.partition, err)
				time.Sleep(100 * time.Millisecond)
			}
			batch = rest
		}
		if !open || session.Context().Err() != nil {
			return nil
		}
	}
}

// A message, and those that are there already.
func next(messages <-chan *sarama.ConsumerMessage) (batch []*sarama.ConsumerMessage, open bool) {
	message, open := <-messages
	for open {
		batch = append(batch, message)
		if len(batch) == batchMax {
			return batch, true
		}
		select {
		case message, open = <-messages:
		default:
			return batch, true
		}
	}
	return batch, false
}

// What processes one partition as long as it is claimed.
type worker struct {
	*member
	partition int32
	// None yet, or none any more after a failed transaction.
	producer sarama.SyncProducer
	// Where the group has come to.
	offset int64
}

func (w *worker) close() {
	if w.producer != nil {
		if err := w.producer.Close(); err != nil {
			log.Print("close: ", err)
		}
		w.producer = nil
	}
}

// Fences the last owner's transactions, and only then asks where they have come to.
func (w *worker) take() error {
	config := config(fmt.Sprintf("%s-%d", w.id, w.partition), 60000)
	config.ClientID = w.id
	config.Net.ReadTimeout = 10 * time.Second
	config.Producer.Transaction.Timeout = transactionTimeout
	producer, err := sarama.NewSyncProducer(w.bootstrap, config)
	if err != nil {
		return err
	}
	w.producer = producer
	answer, err := w.admin.ListConsumerGroupOffsets(w.group, map[string][]int32{w.input: {w.partition}})
	if err != nil {
		w.close()
		return err
	}
	block := answer.GetBlock(w.input, w.partition)
	if block == nil || !errors.Is(block.Err, sarama.ErrNoError) {
		w.close()
		return fmt.Errorf("no committed offset: %v", block)
	}
	w.offset = max(block.Offset, 0)
	return nil
}

// One transaction; what is left to do of the batch.
func (w *worker) process(batch []*sarama.ConsumerMessage) ([]*sarama.ConsumerMessage, error) {
	if w.producer == nil {
		if err := w.take(); err != nil {
			return batch, err
		}
	}
	for len(batch) > 0 && batch[0].Offset < w.offset {
		batch = batch[1:]
	}
	if len(batch) == 0 {
		return nil, nil
	}
	aborts := w.transactions.Add(1)%abortEvery == 0
	if err := w.transaction(batch, aborts); err != nil {
		// Committed or not: the next producer of this id learns it from the group's offset.
		w.close()
		return batch, err
	}
	if aborts {
		fmt.Println("aborted")
		return batch, nil
	}
	w.offset = batch[len(batch)-1].Offset + 1
	fmt.Println("committed", w.finished.Add(int64(len(batch))))
	return nil, nil
}

func (w *worker) transaction(batch []*sarama.ConsumerMessage, aborts bool) error {
	if err := w.producer.BeginTxn(); err != nil {
		return err
	}
	for _, message := range batch {
		_, _, err := w.producer.SendMessage(&sarama.ProducerMessage{
			Topic: w.out, Partition: w.partition, Value: sarama.ByteEncoder(message.Value),
		})
		if err != nil {
			return err
		}
	}
	if err := w.producer.AddMessageToTxn(batch[len(batch)-1], w.group, nil); err != nil {
		return err
	}
	if aborts {
		return w.producer.AbortTxn()
	}
	return w.producer.CommitTxn()
}
