// Load asks for a URL at a fixed rate, whether or not earlier requests were answered, and
// prints how many it asked and the 50th, 90th, 99th and 99.9th percentile of the time until
// the whole answer was there, in microseconds. A request's time begins when it was due: one
// that comes late because the machine, the server or all 100 connections were busy has waited.
//
//	load -rate 1000 -for 5s -header 'Authorization: Basic …' URL
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	rate := flag.Float64("rate", 1000, "requests a second")
	length := flag.Duration("for", 5*time.Second, "how long")
	header := flag.String("header", "Accept: */*", "a header of each request")
	flag.Parse()
	if flag.NArg() != 1 || *rate <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	times, err := ask(flag.Arg(0), *header, *rate, *length)
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	slices.Sort(times)
	fmt.Print(len(times))
	for _, part := range []float64{0.5, 0.9, 0.99, 0.999} {
		fmt.Print(" ", times[int(part*float64(len(times)))].Microseconds())
	}
	fmt.Println()
}

// connections bounds those that are open: nginx takes no more than it has places for.
const connections = 100

// ask returns how long each request took. One that is not answered 200 is an error.
func ask(url, header string, rate float64, length time.Duration) ([]time.Duration, error) {
	name, value, _ := strings.Cut(header, ": ")
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, DisableCompression: true}}
	one := func() error {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set(name, value)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close() // it is read to its end
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, resp.Status)
		}
		return nil
	}
	n := max(1, int(rate*length.Seconds()))
	times, errs := make([]time.Duration, n), make([]error, n)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range n {
		due := begin.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		time.Sleep(time.Until(due))
		all.Go(func() {
			errs[i] = one()
			times[i] = time.Since(due)
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return times, nil
}
