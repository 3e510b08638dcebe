package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// ManPages returns the manual of the command line by file name, as troff for man(7):
// securefiles.1, and a page for each command. The date is that of the version.
func ManPages(date time.Time) (map[string]string, error) {
	parser, err := newParser(&commands{}, Env{})
	if err != nil {
		return nil, err
	}
	pages := map[string]string{}
	nodes := []*kong.Node{parser.Model.Node}
	for len(nodes) > 0 {
		node := nodes[0]
		nodes = append(nodes[1:], visible(node)...)
		name := pageOf(node)
		pages[name+".1"] = manPage(name, node, date)
	}
	return pages, nil
}

// visible are the commands below a node that help shows.
func visible(node *kong.Node) []*kong.Node {
	var list []*kong.Node
	for _, child := range node.Children {
		if !child.Hidden {
			list = append(list, child)
		}
	}
	return list
}

// pageOf is the name of a command's page: securefiles-link-create.
func pageOf(node *kong.Node) string {
	return strings.ReplaceAll(strings.TrimSpace(node.FullPath()), " ", "-")
}

func manPage(name string, node *kong.Node, date time.Time) string {
	var out strings.Builder
	summary, detail, _ := strings.Cut(node.Help, "\n")
	if node.Detail != "" {
		detail = node.Detail
	}
	fmt.Fprintf(&out, ".TH %s 1 %s \"securefiles %s\" \"User Commands\"\n", strings.ToUpper(roff(name)), date.UTC().Format(time.DateOnly), roff(Version().Version))
	fmt.Fprintf(&out, ".SH NAME\n%s \\- %s\n", roff(name), roff(strings.TrimSuffix(summary, ".")))

	fmt.Fprintf(&out, ".SH SYNOPSIS\n.B %s\n", roff(node.FullPath()))
	below := visible(node)
	if len(below) > 0 {
		out.WriteString(".I COMMAND\n")
	}
	out.WriteString("[\\fIOPTION\\fR]\\&...\n")
	for _, p := range node.Positional {
		out.WriteString(roff(p.Summary()) + "\n")
	}

	out.WriteString(".SH DESCRIPTION\n" + roff(summary) + "\n")
	manText(&out, detail)
	if len(node.Positional) > 0 {
		out.WriteString(".SH ARGUMENTS\n")
		for _, p := range node.Positional {
			fmt.Fprintf(&out, ".TP\n.I %s\n%s\n", roff(p.Summary()), roff(p.Help))
		}
	}
	if len(below) > 0 {
		out.WriteString(".SH COMMANDS\n")
		for _, child := range below {
			fmt.Fprintf(&out, ".TP\n.BR %s (1)\n%s\n", roff(pageOf(child)), roff(child.Help))
		}
	}
	out.WriteString(".SH OPTIONS\n")
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			manFlag(&out, f)
		}
	}
	if node.DefaultCmd != nil { // its name can be left out
		for _, f := range node.DefaultCmd.Flags {
			manFlag(&out, f)
		}
	}
	out.WriteString(".SH EXIT STATUS\n0 for yes or fine, 1 for no or findings, 2 for a usage or configuration error.\n")
	out.WriteString(".SH FILES\n.TP\n.I /etc/securefiles/securefiles.yaml\nThe configuration, where no other is named and none is in the working directory.\n")
	out.WriteString(".SH SEE ALSO\n")
	var also []string
	if node.Parent != nil {
		also = append(also, fmt.Sprintf(".BR %s (1)", roff(pageOf(node.Parent))))
	}
	also = append(also, ".BR nginx (8)")
	out.WriteString(strings.Join(also, " ,\n") + "\n")
	return out.String()
}

func manFlag(out *strings.Builder, f *kong.Flag) {
	out.WriteString(".TP\n")
	if f.Short != 0 {
		fmt.Fprintf(out, "\\fB\\-%c\\fR, ", f.Short)
	}
	fmt.Fprintf(out, "\\fB\\-\\-%s\\fR", roff(f.Name))
	if !f.IsBool() {
		fmt.Fprintf(out, "=\\fI%s\\fR", roff(f.FormatPlaceHolder()))
	}
	out.WriteString("\n" + roff(f.Help) + "\n")
	for _, name := range f.Envs {
		fmt.Fprintf(out, "The variable\n.B %s\nsays the same.\n", roff(name))
	}
}

// manText writes paragraphs; what is indented stands as it is written.
func manText(out *strings.Builder, text string) {
	verbatim := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ")
		switch {
		case indented && !verbatim:
			out.WriteString(".PP\n.RS 4\n.nf\n")
		case !indented && verbatim:
			out.WriteString(".fi\n.RE\n")
		}
		verbatim = indented
		switch {
		case indented:
			out.WriteString(roff(strings.TrimPrefix(line, "  ")) + "\n")
		case line == "":
		default:
			out.WriteString(".PP\n" + roff(line) + "\n")
		}
	}
	if verbatim {
		out.WriteString(".fi\n.RE\n")
	}
}

// roff is text that troff prints as it stands. An apostrophe and a period would begin a
// request at the start of a line; troff reads no UTF-8.
func roff(text string) string {
	var out strings.Builder
	for i, r := range text {
		switch {
		case strings.ContainsRune("\\-^~`'", r):
			out.WriteString(map[rune]string{'\\': `\e`, '-': `\-`, '^': `\(ha`, '~': `\(ti`, '`': `\(ga`, '\'': `\(aq`}[r])
		case r == '.' && (i == 0 || text[i-1] == '\n'):
			out.WriteString(`\&.`)
		case r > 0x7e:
			fmt.Fprintf(&out, `\[u%04X]`, r)
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}
