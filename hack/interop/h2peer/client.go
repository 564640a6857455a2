package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// client calls the methods of serveGRPC.
type client struct{ *grpc.ClientConn }

// callGRPC calls everything that serveGRPC serves.
func callGRPC(address string) error {
	connection, err := grpc.NewClient(
		address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(largest), grpc.MaxCallSendMsgSize(largest),
		),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	c := client{connection}
	return run([]trial{
		{"unary", c.tryUnary},
		{"metadata", c.tryMetadata},
		{"error", c.tryError},
		{"unimplemented", c.tryUnimplemented},
		{"server stream", c.tryServerStream},
		{"client stream", c.tryClientStream},
		{"ping pong", c.tryPingPong},
		{"8 MiB", c.tryLarge},
		{"8 MiB each way on a stream", c.tryLargeStream},
		{"a thousand at once", c.tryMany},
		{"deadline", c.tryDeadline},
		{"cancellation", c.tryCancellation},
	})
}

func (c client) ask(ctx context.Context, method, message string, options ...grpc.CallOption) (string, error) {
	request, answer := []byte(message), []byte{}
	err := c.Invoke(ctx, "/test/"+method, &request, &answer, options...)
	return string(answer), err
}

func (c client) stream(ctx context.Context, method string) (grpc.ClientStream, error) {
	return c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test/"+method)
}

func (c client) tryUnary(ctx context.Context) error {
	answer, err := c.ask(ctx, "Unary", "abc")
	return errors.Join(err, expect("answer", answer, "cba"))
}

func (c client) tryMetadata(ctx context.Context) error {
	every := make([]byte, 256)
	for at := range every {
		every[at] = byte(at)
	}
	large := strings.Repeat("x", 8000)
	ctx = metadata.AppendToOutgoingContext(
		ctx, "x-every-bin", string(every), "x-large", large, "x-twice", "a", "x-twice", "b", "x-empty", "",
	)
	var header, trailer metadata.MD
	answer, err := c.ask(ctx, "Unary", "", grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		return err
	}
	return errors.Join(
		expect("answer", answer, ""),
		expect("binary", strings.Join(header.Get("x-every-bin"), ","), string(every)),
		expect("large", strings.Join(header.Get("x-large"), ","), large),
		expect("twice", strings.Join(header.Get("x-twice"), ","), "a,b"),
		expect("empty", len(header.Get("x-empty")), 1),
		expect("size", strings.Join(trailer.Get("size"), ","), "0"),
		expect("blob", strings.Join(trailer.Get("blob-bin"), ","), "\x00\xff"),
	)
}

func (c client) tryError(ctx context.Context) error {
	var trailer metadata.MD
	_, err := c.ask(ctx, "Refuses", "", grpc.Trailer(&trailer))
	return errors.Join(
		expect("code", status.Code(err), codes.FailedPrecondition),
		expect("message", status.Convert(err).Message(), "not now: é"),
		expect("why", strings.Join(trailer.Get("why-bin"), ","), "\x00\xff"),
	)
}

func (c client) tryUnimplemented(ctx context.Context) error {
	_, err := c.ask(ctx, "Nothing", "")
	return expect("code", status.Code(err), codes.Unimplemented)
}

func (c client) tryServerStream(ctx context.Context) error {
	stream, err := c.stream(ctx, "Counts")
	if err != nil {
		return err
	}
	count := []byte("1000")
	if err := errors.Join(stream.SendMsg(&count), stream.CloseSend()); err != nil {
		return err
	}
	for number := range 1000 {
		var answer []byte
		if err := stream.RecvMsg(&answer); err != nil {
			return err
		}
		if err := expect("answer", string(answer), strconv.Itoa(number)); err != nil {
			return err
		}
	}
	return atEnd(stream)
}

func (c client) tryClientStream(ctx context.Context) error {
	stream, err := c.stream(ctx, "Adds")
	if err != nil {
		return err
	}
	for number := range 1000 {
		message := []byte(strconv.Itoa(number))
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
	var answer []byte
	if err := errors.Join(stream.CloseSend(), stream.RecvMsg(&answer)); err != nil {
		return err
	}
	return errors.Join(expect("sum", string(answer), "499500"), atEnd(stream))
}

func (c client) tryPingPong(ctx context.Context) error {
	stream, err := c.stream(ctx, "Echoes")
	if err != nil {
		return err
	}
	for number := range 200 {
		message, answer := []byte(strconv.Itoa(number)), []byte{}
		if err := errors.Join(stream.SendMsg(&message), stream.RecvMsg(&answer)); err != nil {
			return err
		}
		if err := expect("answer", string(answer), string(message)); err != nil {
			return err
		}
	}
	return errors.Join(stream.CloseSend(), atEnd(stream))
}

func (c client) tryLarge(ctx context.Context) error {
	message := large()
	answer, err := c.ask(ctx, "Unary", string(message))
	return errors.Join(err, expect("the same back", answer == string(reversed(message)), true))
}

func (c client) tryLargeStream(ctx context.Context) error {
	stream, err := c.stream(ctx, "Echoes")
	if err != nil {
		return err
	}
	message, answer := large(), []byte{}
	for range 2 {
		if err := errors.Join(stream.SendMsg(&message), stream.RecvMsg(&answer)); err != nil {
			return err
		}
		if err := expect("the same back", bytes.Equal(answer, message), true); err != nil {
			return err
		}
	}
	return errors.Join(stream.CloseSend(), atEnd(stream))
}

func (c client) tryMany(ctx context.Context) error {
	return together(1000, func(number int) error {
		message := fmt.Sprintf("call %d", number)
		answer, err := c.ask(ctx, "Unary", message)
		return errors.Join(err, expect("answer", answer, string(reversed([]byte(message)))))
	})
}

func (c client) tryDeadline(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	name := fmt.Sprintf("deadline %d", time.Now().UnixNano())
	_, err := c.ask(metadata.AppendToOutgoingContext(short, "name", name), "Sleeps", "")
	// A server whose clock is first may reset the call with CANCEL.
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Canceled {
		return fmt.Errorf("it did not end at its deadline but: %v", err)
	}
	return c.untilAsleep(ctx, name, false)
}

func (c client) tryCancellation(ctx context.Context) error {
	name := fmt.Sprintf("cancellation %d", time.Now().UnixNano())
	inner, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "name", name))
	defer cancel()
	stream, err := c.stream(inner, "Sleeps")
	if err != nil {
		return err
	}
	message := []byte("x")
	if err := stream.SendMsg(&message); err != nil {
		return err
	}
	if err := c.untilAsleep(ctx, name, true); err != nil {
		return err
	}
	cancel()
	err = stream.RecvMsg(&message)
	return errors.Join(expect("code", status.Code(err), codes.Canceled), c.untilAsleep(ctx, name, false))
}

// untilAsleep waits until the server has begun with the call of Sleeps, or knows that it is over.
func (c client) untilAsleep(ctx context.Context, name string, want bool) error {
	for {
		answer, err := c.ask(ctx, "Asleep", name)
		if err != nil || answer == strconv.FormatBool(want) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func atEnd(stream grpc.ClientStream) error {
	var more []byte
	if err := stream.RecvMsg(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream did not end: %v, %.100q", err, more)
	}
	return nil
}
