package cli

import (
	"io"

	"securefiles/internal/listing"
)

type listingCommand struct {
	Page listingPageCommand `cmd:"" help:"Print the page that people see, to make one of your own of."`
}

type listingPageCommand struct{}

func (listingPageCommand) Help() string {
	return "An html/template: change it, and name the file as listing.template in the configuration. `check` finds what is wrong with it.\n\nExample:\n  securefiles listing page > listing.html"
}

func (listingPageCommand) Run(env Env) error {
	_, err := io.WriteString(env.Stdout, listing.Page)
	return err
}
