// Package smoke runs the checks of one Go library and prints a line for each. The contract is in ../../README.md.
package smoke

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
)

var names = strings.Fields(`codec-none codec-gzip codec-snappy codec-lz4 codec-zstd group-consume group-rebalance idempotence
	transaction-commit-abort transaction-offsets seek timestamp-lookup headers large-record empty-record tombstone
	admin-topics admin-config reconnect`)

// A check that takes longer than this hangs.
const limit = 120 * time.Second

// Skipped says why the library can't do what the check asks for. A check panics with it, and with any error.
type Skipped string

// Skip makes a check of a reason not to run it.
func Skip(reason string) func() { return func() { panic(Skipped(reason)) } }

// Must panics with err.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Value panics with err, or returns the value.
func Value[T any](value T, err error) T {
	Must(err)
	return value
}

// Expect panics when got is not wanted.
func Expect(what string, got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		panic(fmt.Errorf("%s: %.200q instead of %.200q", what, fmt.Sprint(got), fmt.Sprint(wanted)))
	}
}

// Until panics when condition does not become true.
func Until(what string, condition func() bool) {
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic(fmt.Errorf("%s did not come about", what))
		}
	}
}

// Texts are values that compress well.
func Texts(count, start int) []string {
	texts := make([]string, count)
	for i := range texts {
		texts[i] = strings.Repeat(fmt.Sprintf("record %d ", start+i), 10)
	}
	return texts
}

var answers = bufio.NewScanner(os.Stdin)

// RestartBroker returns once the broker was killed and started again; it skips the check where the broker is not ours.
func RestartBroker() {
	fmt.Println("restart")
	if !answers.Scan() || answers.Text() != "restarted" {
		panic(Skipped("this broker can't be restarted"))
	}
}

// Run is a driver's main: of has a function for each check.
func Run(of func(bootstrap, prefix string) map[string]func()) {
	bootstrap := flag.String("bootstrap", "", "")
	prefix := flag.String("prefix", "", "")
	flag.Parse()
	checks := of(*bootstrap, *prefix)
	status := 0
	for _, name := range names {
		outcome := make(chan string, 1)
		go func() { outcome <- one(name, checks[name]) }()
		var line string
		select {
		case line = <-outcome:
		case <-time.After(limit):
			line = fmt.Sprintf("failed %s: no end within %v", name, limit)
		}
		if strings.HasPrefix(line, "failed") {
			status = 1
		}
		fmt.Println(line)
	}
	os.Exit(status)
}

func one(name string, check func()) (line string) {
	defer func() {
		switch reason := recover().(type) {
		case nil:
		case Skipped:
			line = fmt.Sprintf("skipped %s: %s", name, string(reason))
		default:
			line = fmt.Sprintf("failed %s: %s", name, strings.Join(strings.Fields(fmt.Sprint(reason)), " "))
		}
	}()
	check()
	return "ok " + name
}
