package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const lateMinutes = 15

// Reads a batch, processes it and writes the results and the offsets in one transaction. The client's own session does what
// the contract asks for: it sends the offsets of the records that were polled, aborts when the group rebalanced since, and
// after an abort goes back to the committed offsets.
type processor struct {
	opts        options
	session     *kgo.GroupTransactSession
	counts      *counts
	transaction int
	committed   int
}

func process(ctx context.Context, opts options) error {
	p := &processor{opts: opts, counts: &counts{opts: opts, owned: make(map[int32]hours)}}
	forget := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		log.Println("revoked", lost[opts.in])
		p.counts.forget(lost[opts.in])
	}
	session, err := kgo.NewGroupTransactSession(opts.client(
		kgo.ConsumerGroup(opts.group),
		kgo.ConsumeTopics(opts.in),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(1500*time.Millisecond),
		kgo.RebalanceTimeout(60*time.Second),
		kgo.OnPartitionsRevoked(forget),
		kgo.OnPartitionsLost(forget),
		// Between the stable offsets and the first record. No earlier owner's commit can appear behind the end that is restored to.
		kgo.AdjustFetchOffsetsFn(p.assigned),
		kgo.TransactionalID(opts.transactionalID),
		kgo.TransactionTimeout(20*time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)...)
	if err != nil {
		return err
	}
	defer session.Close()
	p.session = session
	// Asked for now, not with the first record: it ends a transaction that the process before this one left open, which
	// the restoring of counts, here and elsewhere, waits for.
	if _, _, err := session.Client().ProducerID(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		fetches := session.PollRecords(ctx, opts.batch)
		if err := pollError(fetches); err != nil {
			return err
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		// A stop waits for the transaction: cancelling a call in the middle would leave the client in an undefined state.
		if err := p.process(context.WithoutCancel(ctx), fetches.Records()); err != nil {
			return err
		}
	}
	return nil
}

type offsets = map[string]map[int32]kgo.Offset

func (p *processor) assigned(ctx context.Context, stable offsets) (offsets, error) {
	var numbers []int32
	for partition := range stable[p.opts.in] {
		numbers = append(numbers, partition)
	}
	log.Println("assigned", stable[p.opts.in])
	return stable, p.counts.restore(ctx, numbers)
}

// A session that ended is begun again by the client; anything else that it reports is not for the processor to mend.
func pollError(fetches kgo.Fetches) error {
	for _, fetched := range fetches.Errors() {
		var session *kgo.ErrGroupSession
		if !errors.As(fetched.Err, &session) && !kerr.IsRetriable(fetched.Err) {
			return fmt.Errorf("%s-%d: %w", fetched.Topic, fetched.Partition, fetched.Err)
		}
		log.Println("poll:", fetched.Err)
	}
	return nil
}

func (p *processor) process(ctx context.Context, records []*kgo.Record) error {
	p.transaction++
	if p.opts.offsetsBeforeOutputs {
		if err := p.commitOffsets(ctx); err != nil {
			return err
		}
	}
	if err := p.session.Begin(); err != nil {
		return err
	}
	draft := p.counts.draft()
	written := kgo.AbortingFirstErrPromise(p.session.Client())
	outcome := kgo.TryCommit
	for _, record := range records {
		count, owned := draft.next(record.Partition, string(record.Key))
		if !owned {
			outcome = kgo.TryAbort
			break
		}
		if err := p.write(ctx, record, count, written.Promise); err != nil {
			return err
		}
	}
	if err := written.Err(); err != nil {
		log.Printf("transaction %d failed: %v", p.transaction, err)
		outcome = kgo.TryAbort
	}
	deliberate := outcome == kgo.TryCommit && p.transaction%p.opts.abortEvery == 0
	if deliberate {
		outcome = kgo.TryAbort // the session sends no offsets then: an abort of offsets comes with the other clients
	}
	committed, err := p.session.End(ctx, outcome)
	switch {
	case err != nil:
		return err
	case committed:
		draft.keep()
		p.committed += len(records)
		fmt.Println("committed", p.committed)
		log.Printf("committed transaction %d %s", p.transaction, shown(records))
	case deliberate:
		fmt.Println("aborted")
		log.Printf("aborted transaction %d %s", p.transaction, shown(records))
	default:
		log.Printf("transaction %d did not commit", p.transaction)
	}
	return nil
}

func (p *processor) write(ctx context.Context, record *kgo.Record, count int64, promise func() func(*kgo.Record, error)) error {
	var flight struct{ Index, Delay int }
	if err := json.Unmarshal(record.Value, &flight); err != nil {
		return err
	}
	answer := fmt.Sprintf(`{"index":%d,"hour":%s,"late":%t}`, flight.Index, record.Key, flight.Delay > lateMinutes)
	writer := fmt.Sprintf("%s/%d/%d", p.opts.transactionalID, p.opts.instance, p.transaction)
	send := func(topic, value string) {
		p.session.Produce(ctx, &kgo.Record{
			Topic: topic, Partition: record.Partition, Key: record.Key, Value: []byte(value),
			Headers: []kgo.RecordHeader{{Key: "writer", Value: []byte(writer)}},
		}, promise())
	}
	send(p.opts.out, answer)
	send(p.opts.counts, strconv.FormatInt(count, 10))
	return nil
}

// The control that loses: offsets by a plain commit, before anything is written.
func (p *processor) commitOffsets(ctx context.Context) (failure error) {
	client := p.session.Client()
	client.CommitOffsetsSync(ctx, client.UncommittedOffsets(),
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			failure = err
			for _, topic := range response.Topics {
				for _, partition := range topic.Partitions {
					failure = errors.Join(failure, kerr.ErrorForCode(partition.ErrorCode))
				}
			}
		})
	return failure
}

// The next offset of each partition, as it is sent to the group.
func shown(records []*kgo.Record) string {
	next := make(map[int32]int64)
	for _, record := range records {
		next[record.Partition] = record.Offset + 1
	}
	return fmt.Sprint(next)
}
