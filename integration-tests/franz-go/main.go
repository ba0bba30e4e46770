// The main job's feeder and processor with franz-go. The contract is in ../README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	exitUsage = 2
	// A processor that must be started again: fenced, or in a state that it cannot leave by aborting.
	exitFatal = 3
)

type options struct {
	bootstrap, topic, data                   string
	group, transactionalID, in, out, counts  string
	instance, count, batch, abortEvery       int
	withoutIdempotence, offsetsBeforeOutputs bool
}

func main() {
	// Standard output speaks to the harness; standard error keeps what is needed to trace a wrong result to its writer.
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: feeder|processor --name value ...")
		os.Exit(exitUsage)
	}
	var opts options
	flags := opts.flags()
	if err := flags.Parse(os.Args[2:]); err != nil || flags.NArg() > 0 {
		os.Exit(exitUsage)
	}
	run, known := map[string]func(context.Context, options) error{"feeder": feed, "processor": process}[os.Args[1]]
	if !known {
		fmt.Fprintln(os.Stderr, "unknown role", os.Args[1])
		os.Exit(exitUsage)
	}
	if err := run(ctx, opts); err != nil && !errors.Is(err, context.Canceled) {
		log.Println("fatal:", err)
		os.Exit(exitFatal)
	}
}

func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet(os.Args[1], flag.ContinueOnError)
	f.StringVar(&o.bootstrap, "bootstrap", "", "broker, HOST:PORT")
	f.StringVar(&o.topic, "topic", "", "feeder: where to")
	f.StringVar(&o.data, "data", "", "feeder: file of flights")
	f.IntVar(&o.count, "count", 0, "feeder: how many records")
	f.BoolVar(&o.withoutIdempotence, "no-idempotence", false, "feeder: the control that duplicates")
	f.StringVar(&o.group, "group", "", "processor: group")
	f.StringVar(&o.transactionalID, "transactional-id", "", "processor: transactional id")
	f.StringVar(&o.in, "in", "", "processor: input topic")
	f.StringVar(&o.out, "out", "", "processor: output topic")
	f.StringVar(&o.counts, "counts", "", "processor: topic of running counts")
	f.IntVar(&o.instance, "instance", 0, "processor: number of this start")
	f.IntVar(&o.batch, "batch", 200, "processor: most records in a transaction")
	f.IntVar(&o.abortEvery, "abort-every", 10, "processor: one transaction in so many is aborted and redone")
	f.BoolVar(&o.offsetsBeforeOutputs, "offsets-first", false, "processor: the control that loses")
	return f
}

// What both roles and the restoring of counts have in common. A broker that was killed is looked for often.
func (o *options) client(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(o.bootstrap),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(time.Duration(tries)*50*time.Millisecond, 500*time.Millisecond)
		}),
		kgo.RequestRetries(1000),
		kgo.RetryTimeout(60 * time.Second),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.WithLogger(kgo.BasicLogger(os.Stderr, kgo.LogLevelWarn, nil)),
	}, more...)
}
