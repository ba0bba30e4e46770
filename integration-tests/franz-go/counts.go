package main

import (
	"context"
	"fmt"
	"log"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const restoreTimeout = 60 * time.Second

// Running counts of one partition's hours. Given up with the partition: whoever still holds it cannot spoil the next owner's.
type hours map[string]int64

// The running count of each hour, for the partitions that this processor owns. The topic of counts is where they live.
type counts struct {
	opts  options
	mu    sync.Mutex // rebalances come from another goroutine than the work
	owned map[int32]hours
}

// Reads what earlier owners committed. The caller has already been told the partitions' stable offsets, so whatever those
// offsets cover lies below the high watermark asked for here. The last stable offset would not do: it may still be held back
// by the open transaction of an owner that is gone, in front of counts that a later owner committed.
func (c *counts) restore(ctx context.Context, numbers []int32) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	from := make(map[int32]kgo.Offset)
	restored := make(map[int32]hours)
	for _, partition := range numbers {
		from[partition] = kgo.NewOffset().AtStart()
		restored[partition] = hours{}
	}
	client, err := kgo.NewClient(c.opts.client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.opts.counts: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// A marker ends every transaction, so that the record before the high watermark, or one behind it, is always shown.
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond),
	)...)
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, c.opts.counts)
	if err != nil {
		return err
	}
	if err := ends.Error(); err != nil {
		return err
	}
	missing := make(map[int32]int64)
	for _, partition := range numbers {
		end, known := ends.Lookup(c.opts.counts, partition)
		if !known {
			return fmt.Errorf("%s has no partition %d", c.opts.counts, partition)
		}
		if end.Offset > 0 {
			missing[partition] = end.Offset
		}
	}
	for reached := maps.Clone(missing); len(missing) > 0; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("restoring to %v: %w", reached, err)
		}
		if err := take(fetches, restored, missing); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.owned, restored)
	log.Println("restored", restored)
	return nil
}

func take(fetches kgo.Fetches, restored map[int32]hours, missing map[int32]int64) error {
	var failure error
	fetches.EachRecord(func(r *kgo.Record) {
		if !r.Attrs.IsControl() {
			count, err := strconv.ParseInt(string(r.Value), 10, 64)
			if err != nil {
				failure = err
			}
			restored[r.Partition][string(r.Key)] = count
		}
		if end, open := missing[r.Partition]; open && r.Offset >= end-1 {
			delete(missing, r.Partition)
		}
	})
	return failure
}

func (c *counts) forget(numbers []int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, partition := range numbers {
		delete(c.owned, partition)
	}
}

// The counts as one transaction sees them: keep makes them the state, dropping the draft undoes them.
type draft struct {
	owned   map[int32]hours
	changed map[int32]hours
}

func (c *counts) draft() draft {
	c.mu.Lock()
	defer c.mu.Unlock()
	return draft{owned: maps.Clone(c.owned), changed: make(map[int32]hours)}
}

// False when the partition has been taken away since its records were polled.
func (d *draft) next(partition int32, hour string) (int64, bool) {
	before, owned := d.owned[partition]
	if !owned {
		return 0, false
	}
	changed, started := d.changed[partition]
	if !started {
		changed = maps.Clone(before)
		d.changed[partition] = changed
	}
	changed[hour]++
	return changed[hour], true
}

func (d *draft) keep() {
	for partition, changed := range d.changed {
		maps.Copy(d.owned[partition], changed)
	}
}
