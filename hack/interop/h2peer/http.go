package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// serveHTTP echoes bodies until the listener fails, with their size as a trailer. It writes a line for each
// request: what was asked, and the field X-Marker.
func serveHTTP(address string) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Addr: address, Protocols: protocols, Handler: http.HandlerFunc(echo)}
	return server.ListenAndServe()
}

func echo(writer http.ResponseWriter, request *http.Request) {
	fmt.Printf("asked %s %s %s\n", request.Method, request.RequestURI, request.Header.Get("X-Marker"))
	header := writer.Header()
	header.Set("X-Host", request.Host)
	if request.Method != http.MethodPost {
		fmt.Fprintf(writer, "hello %s\n", request.RequestURI)
		return
	}
	header.Set("Trailer", "X-Size")
	control := http.NewResponseController(writer)
	_ = control.EnableFullDuplex() // HTTP/2 always is, and says that it does not know this
	size, err := io.Copy(flushing{writer, control}, request.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	header.Set("X-Size", fmt.Sprint(size))
}

// flushing sends every piece at once.
type flushing struct {
	io.Writer
	control *http.ResponseController
}

func (f flushing) Write(data []byte) (int, error) {
	count, err := f.Writer.Write(data)
	return count, errors.Join(err, f.control.Flush())
}

// web is a client of serveHTTP.
type web struct {
	*http.Client
	base string
}

// callHTTP asks everything that serveHTTP answers.
func callHTTP(address string) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	w := web{&http.Client{Transport: &http.Transport{Protocols: protocols}}, "http://" + address}
	return run([]trial{
		{"get", w.tryGet},
		{"head", w.tryHead},
		{"echo", w.tryEcho},
		{"8 MiB", w.tryLarge},
		{"trailers", w.tryTrailers},
		{"a thousand at once", w.tryMany},
		{"cancellation", w.tryCancellation},
	})
}

func (w web) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, w.base+path, body)
	if err != nil {
		return nil, nil, err
	}
	// Without it no trailer of an endpoint of HTTP/1 reaches us (RFC 9110 section 6.5.1).
	request.Header.Set("TE", "trailers")
	response, err := w.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	return response, got, errors.Join(
		err, expect("protocol", response.Proto, "HTTP/2.0"), expect("status", response.StatusCode, 200),
	)
}

func (w web) tryGet(ctx context.Context) error {
	base, err := url.Parse(w.base)
	if err != nil {
		return err
	}
	response, got, err := w.ask(ctx, "GET", "/a%2Fb?c=%20", nil)
	if err != nil {
		return err
	}
	return errors.Join(
		expect("body", string(got), "hello /a%2Fb?c=%20\n"),
		expect("host", response.Header.Get("X-Host"), base.Host),
	)
}

func (w web) tryHead(ctx context.Context) error {
	_, got, err := w.ask(ctx, "HEAD", "/", nil)
	return errors.Join(err, expect("body", len(got), 0))
}

func (w web) tryEcho(ctx context.Context) error {
	_, got, err := w.ask(ctx, "POST", "/", strings.NewReader("abc"))
	return errors.Join(err, expect("body", string(got), "abc"))
}

func (w web) tryLarge(ctx context.Context) error {
	message := large()
	_, got, err := w.ask(ctx, "POST", "/", bytes.NewReader(message))
	return errors.Join(err, expect("the same back", bytes.Equal(got, message), true))
}

func (w web) tryTrailers(ctx context.Context) error {
	// A reader of an unknown length: the request says none.
	response, got, err := w.ask(ctx, "POST", "/", io.MultiReader(strings.NewReader("ab"), strings.NewReader("c")))
	if err != nil {
		return err
	}
	return errors.Join(expect("body", string(got), "abc"), expect("trailer", response.Trailer.Get("X-Size"), "3"))
}

func (w web) tryMany(ctx context.Context) error {
	return together(1000, func(number int) error {
		message := fmt.Sprintf("request %d", number)
		_, got, err := w.ask(ctx, "POST", "/", strings.NewReader(message))
		return errors.Join(err, expect("body", string(got), message))
	})
}

func (w web) tryCancellation(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	reader, writer := io.Pipe()
	defer writer.Close()
	go func() {
		_, _ = writer.Write([]byte("abc"))
		cancel()
	}()
	_, _, err := w.ask(inner, "POST", "/", reader)
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("not cancelled: %v", err)
	}
	return w.tryEcho(ctx)
}
