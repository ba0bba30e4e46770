// One transactional step at a time with sarama, as the harness says, or a member of a group. The contract is in ../README.md.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

const (
	// A request without an answer is given up after this long, and its connection with it.
	requestTimeout = 2500 * time.Millisecond
	stepTimeout    = 60 * time.Second
)

type steps struct {
	producer          sarama.SyncProducer
	out, input, group string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "member" {
		runMember(os.Args[2:])
		return
	}
	if len(os.Args) < 2 || os.Args[1] != "steps" {
		log.Fatal("usage: main steps|member --bootstrap H:P ...")
	}
	flags := flag.NewFlagSet("steps", flag.ExitOnError)
	bootstrap := flags.String("bootstrap", "", "")
	id := flags.String("transactional-id", "", "")
	out := flags.String("out", "", "")
	input := flags.String("in", "", "")
	group := flags.String("group", "", "")
	deliveryTimeoutMs := flags.Int("delivery-timeout-ms", 60000, "")
	if err := flags.Parse(os.Args[2:]); err != nil {
		log.Fatal(err)
	}
	sarama.Logger = log.New(os.Stderr, "", log.LstdFlags|log.Lmicroseconds)

	producer, err := sarama.NewSyncProducer(strings.Split(*bootstrap, ","), config(*id, *deliveryTimeoutMs))
	if err != nil {
		fmt.Println("failed", oneLine(err))
		os.Exit(1)
	}
	s := steps{producer: producer, out: *out, input: *input, group: *group}
	fmt.Println("ok")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := s.step(strings.Fields(lines.Text())); err != nil {
			fmt.Println("failed", oneLine(err))
		} else {
			fmt.Println("ok")
		}
	}
	// Not Close: it waits for what a failed transaction has left.
}

func config(id string, deliveryTimeoutMs int) *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.ClientID = id
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Transaction.ID = id
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Net.MaxOpenRequests = 1
	config.Net.ReadTimeout = requestTimeout
	config.Producer.Retry.Max = 20
	config.Producer.Retry.Backoff = 250 * time.Millisecond
	config.Producer.Transaction.Retry.Max = 50
	if time.Duration(deliveryTimeoutMs)*time.Millisecond < requestTimeout {
		// Sarama counts tries, not time: an impatient client tries once more, the least it allows with idempotence.
		config.Producer.Retry.Max = 1
	}
	return config
}

func (s *steps) step(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("an empty line")
	}
	switch words[0] {
	case "begin":
		return s.producer.BeginTxn()
	case "send":
		partition, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		_, _, err = s.producer.SendMessage(&sarama.ProducerMessage{
			Topic: s.out, Partition: int32(partition), Value: sarama.StringEncoder(words[2]),
		})
		return err
	case "offsets":
		offset, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return err
		}
		offsets := map[string][]*sarama.PartitionOffsetMetadata{s.input: {{Partition: 0, Offset: offset}}}
		return s.producer.AddOffsetsToTxn(offsets, s.group)
	case "commit":
		return s.retried(s.producer.CommitTxn)
	case "abort":
		return s.retried(s.producer.AbortTxn)
	}
	return fmt.Errorf("not understood: %s", words[0])
}

// As sarama's documentation has it: a call that failed is made again unless the producer is in an error of its own.
func (s *steps) retried(call func() error) error {
	for deadline := time.Now().Add(stepTimeout); ; time.Sleep(100 * time.Millisecond) {
		err := call()
		final := s.producer.TxnStatus()&(sarama.ProducerTxnFlagFatalError|sarama.ProducerTxnFlagAbortableError) != 0
		if err == nil || final || time.Now().After(deadline) {
			return err
		}
		log.Print("again: ", err)
	}
}

func oneLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", " ")
}
