package main

import (
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// serveGRPC serves gRPC until the listener fails.
func serveGRPC(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.ForceServerCodec(raw{}), grpc.MaxRecvMsgSize(largest), grpc.UnknownServiceHandler(handle),
	)
	return server.Serve(listener)
}

// handle serves every method; all are streams to the server, whatever they are to the client.
func handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	switch method {
	case "/test/Unary":
		return unary(stream)
	case "/test/Refuses":
		stream.SetTrailer(metadata.Pairs("why-bin", "\x00\xff"))
		return status.Error(codes.FailedPrecondition, "not now: é")
	case "/test/Sleeps":
		name := received(stream, "name")
		asleep.add(name)
		defer asleep.remove(name)
		<-stream.Context().Done()
		return stream.Context().Err()
	case "/test/Asleep":
		return isAsleep(stream)
	case "/test/Counts":
		return counts(stream)
	case "/test/Adds":
		return adds(stream)
	case "/test/Echoes":
		return echoes(stream)
	}
	return status.Error(codes.Unimplemented, method)
}

// asleep has the calls of Sleeps that are under way.
var asleep = &calls{names: map[string]bool{}}

type calls struct {
	lock  sync.Mutex
	names map[string]bool
}

func (c *calls) add(name string) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.names[name] = true
}

func (c *calls) remove(name string) {
	c.lock.Lock()
	defer c.lock.Unlock()
	delete(c.names, name)
}

func (c *calls) has(name string) bool {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.names[name]
}

func received(stream grpc.ServerStream, name string) string {
	values, _ := metadata.FromIncomingContext(stream.Context())
	return strings.Join(values.Get(name), ",")
}

// isAsleep tells whether the call of Sleeps that the message names is under way.
func isAsleep(stream grpc.ServerStream) error {
	var name []byte
	if err := stream.RecvMsg(&name); err != nil {
		return err
	}
	answer := []byte(strconv.FormatBool(asleep.has(string(name))))
	return stream.SendMsg(&answer)
}

// unary answers the message reversed, and the caller's metadata as header and trailers.
func unary(stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	back := metadata.MD{}
	values, _ := metadata.FromIncomingContext(stream.Context())
	for name, all := range values {
		if strings.HasPrefix(name, "x-") && !strings.HasPrefix(name, "x-forwarded") {
			back[name] = all
		}
	}
	if err := stream.SendHeader(back); err != nil {
		return err
	}
	stream.SetTrailer(metadata.Pairs("size", strconv.Itoa(len(message)), "blob-bin", "\x00\xff"))
	answer := reversed(message)
	return stream.SendMsg(&answer)
}

func counts(stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	count, err := strconv.Atoi(string(message))
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for number := range count {
		answer := []byte(strconv.Itoa(number))
		if err := stream.SendMsg(&answer); err != nil {
			return err
		}
	}
	return nil
}

func adds(stream grpc.ServerStream) error {
	sum := 0
	for {
		var message []byte
		err := stream.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			answer := []byte(strconv.Itoa(sum))
			return stream.SendMsg(&answer)
		}
		if err != nil {
			return err
		}
		number, err := strconv.Atoi(string(message))
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		sum += number
	}
}

func echoes(stream grpc.ServerStream) error {
	for {
		var message []byte
		err := stream.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}
