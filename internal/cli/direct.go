package cli

import (
	"errors"
	"fmt"
	"net"

	"securefiles/internal/loopback"
)

// Direct says how the service serves the files itself, without nginx.
type Direct struct {
	// Listen is where clients connect, HOST:PORT.
	Listen string
	// Public says that other hosts may.
	Public bool
}

// check says why nobody may be served there.
func (d *Direct) check() error {
	host, _, err := net.SplitHostPort(d.Listen)
	switch {
	case err != nil:
		return fmt.Errorf("--listen %s: name an address and a port of this machine, such as 127.0.0.1:8080", d.Listen)
	case !d.Public && !loopback.IsAddress(host) && !loopback.IsName(host):
		return fmt.Errorf("--listen %s: other hosts would reach it, and passwords, cookies and files would go over the network in clear text, past the limits and timeouts of a web server: "+
			"listen on 127.0.0.1, put nginx before the service (`securefiles nginx`), or say --insecure-public", d.Listen)
	}
	return nil
}

// DirectProblems are the parts of the configuration that the service cannot serve without
// nginx.
func (p *Parts) DirectProblems() error {
	var problems []error
	for i, d := range p.Config.Downloads {
		if d.Root == "" {
			problems = append(problems, p.Config.At(fmt.Sprintf("downloads[%d]", i), "there is no directory to serve: --direct serves downloads that have a root"))
		}
	}
	return errors.Join(problems...)
}
