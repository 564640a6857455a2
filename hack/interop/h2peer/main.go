// H2peer is a server and a client of gRPC and of HTTP, on Go's own libraries: for tests of who is between them.
//
//	h2peer serve-grpc ADDRESS    serves the methods in server.go until it is killed
//	h2peer serve-http ADDRESS    echoes what it is sent, in HTTP/1.1 and in HTTP/2 without TLS, until it is killed
//	h2peer call-grpc ADDRESS     calls every method there
//	h2peer call-http ADDRESS     asks what serve-http answers, in HTTP/2 without TLS
//
// Those that call write a line for each thing that was right, and end with status 1 if one was not. Messages of
// gRPC are bare bytes: what is tried is the transport, not a schema.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	largest  = 64 << 20
	patience = 60 * time.Second
)

// raw is a codec that leaves messages as they are.
type raw struct{}

func (raw) Name() string                          { return "raw" }
func (raw) Marshal(message any) ([]byte, error)   { return *message.(*[]byte), nil }
func (raw) Unmarshal(data []byte, into any) error { *into.(*[]byte) = bytes.Clone(data); return nil }

func main() {
	modes := map[string]func(string) error{
		"serve-grpc": serveGRPC, "serve-http": serveHTTP, "call-grpc": callGRPC, "call-http": callHTTP,
	}
	if len(os.Args) != 3 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: h2peer serve-grpc|serve-http|call-grpc|call-http ADDRESS")
		os.Exit(2)
	}
	if err := modes[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// trial is one thing that must be right.
type trial struct {
	name string
	try  func(context.Context) error
}

// run tries one after another and says what was right.
func run(trials []trial) error {
	failed := false
	for _, each := range trials {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := each.try(ctx); err != nil {
			failed = true
			fmt.Printf("WRONG %s: %v\n", each.name, err)
		} else {
			fmt.Printf("ok %s\n", each.name)
		}
		cancel()
	}
	if failed {
		return errors.New("not everything was right")
	}
	return nil
}

// together tries the same so many times at once.
func together(count int, try func(number int) error) error {
	results := make(chan error)
	for number := range count {
		go func() { results <- try(number) }()
	}
	var all error
	for range count {
		all = errors.Join(all, <-results)
	}
	return all
}

func expect[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %.200v, not %.200v", what, got, want)
	}
	return nil
}

// large is a message of 8 MiB whose parts are all different.
func large() []byte {
	out := make([]byte, 8<<20)
	for at := range out {
		out[at] = byte(at * 2654435761 >> 16)
	}
	return out
}

func reversed(message []byte) []byte {
	out := make([]byte, len(message))
	for at, value := range message {
		out[len(message)-1-at] = value
	}
	return out
}
