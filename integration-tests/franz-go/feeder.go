package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	stride      = 7919
	partitions  = 6
	reportEvery = 200
)

// Writes the flight records once each, in the job's shuffled order: record i of the topic is line 7919 i mod lines.
func feed(ctx context.Context, opts options) error {
	content, err := os.ReadFile(opts.data)
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	// Records are tried again for ever: that is the client's default.
	more := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5 * time.Millisecond)}
	if opts.withoutIdempotence {
		// Then one request in flight at a time is the client's default: the control is to show duplicates, not another order.
		more = append(more, kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(opts.client(more...)...)
	if err != nil {
		return err
	}
	defer client.Close()

	acknowledged := 0 // promises are called one after another
	var failure atomic.Pointer[error]
	for i := 0; i < opts.count && failure.Load() == nil; i++ {
		index := stride * i % len(lines)
		record, err := flight(opts.topic, index, lines[index])
		if err != nil {
			return err
		}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				failure.CompareAndSwap(nil, &err)
			} else if acknowledged++; acknowledged%reportEvery == 0 {
				fmt.Println("sent", acknowledged)
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if err := failure.Load(); err != nil {
		return *err
	}
	fmt.Println("done", acknowledged)
	return nil
}

// The line's own text is kept, so that numbers come out as they went in.
func flight(topic string, index int, line []byte) (*kgo.Record, error) {
	var fields struct{ Time float64 }
	if err := json.Unmarshal(line, &fields); err != nil {
		return nil, fmt.Errorf("line %d: %w", index, err)
	}
	hour := int(fields.Time)
	return &kgo.Record{
		Topic:     topic,
		Partition: int32(hour % partitions),
		Key:       []byte(strconv.Itoa(hour)),
		Value:     fmt.Appendf(nil, `{"index":%d,%s`, index, line[1:]),
	}, nil
}
