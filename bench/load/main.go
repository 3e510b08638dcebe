// Load asks for a URL at a fixed rate, whether or not earlier requests were answered, and
// prints how many it asked and the 50th, 90th, 99th and 99.9th percentile of the time until
// the whole answer was there, in microseconds. A request's time begins when it was due: one
// that comes late because the machine, the server or all connections were busy has waited.
//
// What is not answered 200 is an error. With -refused it is what a server past its limit
// does: the percentiles are those of 200 alone, and the line goes on with how many were
// answered 200, 503 with Retry-After, something else, and not at all, the 99th percentile of
// the second kind, and how long all took, in microseconds.
//
//	load -rate 1000 -for 5s -header 'Authorization: Basic …' URL
//	load -rate 50000 -for 5s -connections 1000 -refused URL
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	rate := flag.Float64("rate", 1000, "requests a second")
	length := flag.Duration("for", 5*time.Second, "how long")
	header := flag.String("header", "Accept: */*", "a header of each request; {n} in it is the number of the request, in turns of -names")
	names := flag.Int("names", 1, "how many numbers {n} has")
	connections := flag.Int("connections", 100, "how many connections there are at most")
	refused := flag.Bool("refused", false, "count what is not answered 200")
	flag.Parse()
	if flag.NArg() != 1 || *rate <= 0 || *connections < 1 || *names < 1 {
		flag.Usage()
		os.Exit(2)
	}
	begin := time.Now()
	answers, err := ask(flag.Arg(0), *header, *names, *rate, *length, *connections)
	if err == nil && !*refused {
		err = failed(answers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	by := map[string][]time.Duration{}
	for _, a := range answers {
		by[a.kind()] = append(by[a.kind()], a.took)
	}
	fmt.Print(len(answers))
	for _, p := range []float64{0.5, 0.9, 0.99, 0.999} {
		fmt.Print(" ", part(by["200"], p).Microseconds())
	}
	if *refused {
		for _, kind := range []string{"200", "503", "else", "none"} {
			fmt.Print(" ", len(by[kind]))
		}
		fmt.Print(" ", part(by["503"], 0.99).Microseconds(), " ", time.Since(begin).Microseconds())
	}
	fmt.Println()
}

// part is the value below which a part of all lie; 0 of none.
func part(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(p*float64(len(all)))]
}

// An answer is what came of a request.
type answer struct {
	took   time.Duration
	status int  // 0 for none
	later  bool // it says when to come again
	err    error
}

func (a answer) kind() string {
	switch {
	case a.err != nil:
		return "none"
	case a.status == http.StatusOK:
		return "200"
	case a.status == http.StatusServiceUnavailable && a.later:
		return "503"
	}
	return "else"
}

// failed returns the first failure there was.
func failed(all []answer) error {
	for _, a := range all {
		if a.err != nil {
			return a.err
		}
		if a.status != http.StatusOK {
			return fmt.Errorf("answered %d", a.status)
		}
	}
	return nil
}

// ask returns what came of each request. They are asked in their order, each by the first
// connection that is free.
func ask(address, header string, names int, rate float64, length time.Duration, connections int) ([]answer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	answers := make([]answer, max(1, int(rate*length.Seconds())))
	var next atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for range min(connections, len(answers)) {
		c := &client{host: u.Host}
		all.Go(func() {
			defer c.hangUp()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(answers) {
					return
				}
				due := begin.Add(time.Duration(float64(i) / rate * float64(time.Second)))
				time.Sleep(time.Until(due))
				own := strings.ReplaceAll(header, "{n}", fmt.Sprint(i%names))
				a := c.ask("GET " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\n" + own + "\r\n\r\n")
				a.took = time.Since(due)
				answers[i] = a
			}
		})
	}
	all.Wait()
	return answers, nil
}

// A client has a connection, or makes one. net/http's costs as much as what is measured.
type client struct {
	host string
	conn net.Conn
	read *bufio.Reader
}

func (c *client) ask(request string) answer {
	a, err := c.try(request)
	if err != nil {
		c.hangUp()
	}
	a.err = err
	return a
}

const patience = time.Minute

func (c *client) try(request string) (answer, error) {
	idle := c.conn != nil // the server may close it, as the request comes
	for {
		if c.conn == nil {
			conn, err := net.DialTimeout("tcp", c.host, patience)
			if err != nil {
				return answer{}, err
			}
			c.conn, c.read = conn, bufio.NewReader(conn)
		}
		resp, err := c.send(request)
		if err != nil && idle && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			idle = false
			c.hangUp()
			continue
		}
		if err != nil {
			return answer{}, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return answer{}, err
		}
		if resp.Close {
			c.hangUp()
		}
		return answer{status: resp.StatusCode, later: resp.Header.Get("Retry-After") != ""}, nil
	}
}

func (c *client) send(request string) (*http.Response, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c.conn, request); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.read, nil)
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is left to be said
		c.conn = nil
	}
}
