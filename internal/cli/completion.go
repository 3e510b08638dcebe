package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// A completion is what a shell may complete below one command.
type completion struct {
	path     string // of commands, from the first: "link create"
	help     string
	commands []string
	flags    []*kong.Flag
	values   []string // of an argument that has a fixed few
}

// completions lists the commands of a tree, the root first.
func completions(node *kong.Node, path string) []completion {
	c := completion{path: path, help: node.Help}
	for _, group := range node.AllFlags(true) {
		c.flags = append(c.flags, group...)
	}
	if node.DefaultCmd != nil { // its name can be left out
		c.flags = append(c.flags, node.DefaultCmd.Flags...)
	}
	for _, p := range node.Positional {
		if p.Enum != "" {
			c.values = append(c.values, p.EnumSlice()...)
		}
	}
	var below []completion
	for _, child := range visible(node) {
		c.commands = append(c.commands, child.Name)
		below = append(below, completions(child, strings.TrimSpace(path+" "+child.Name))...)
	}
	return append([]completion{c}, below...)
}

// words are what may stand where a new word begins.
func (c *completion) words() string {
	words := slices.Concat(c.commands, c.values)
	for _, f := range c.flags {
		words = append(words, "--"+f.Name)
	}
	return strings.Join(words, " ")
}

// writeCompletion prints a shell's completion for a command line.
func writeCompletion(w io.Writer, shell string, root *kong.Node) error {
	all := completions(root, "")
	var out strings.Builder
	switch shell {
	case "fish":
		fishCompletion(&out, all)
	case "zsh":
		out.WriteString("autoload -U +X bashcompinit && bashcompinit\n")
		fallthrough
	default:
		bashCompletion(&out, all)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func bashCompletion(out *strings.Builder, all []completion) {
	out.WriteString("_securefiles() {\n  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' words='' i\n  COMPREPLY=()\n")
	var known []string
	for _, c := range all[1:] {
		known = append(known, "'"+c.path+"'")
	}
	fmt.Fprintf(out, "  for ((i = 1; i < COMP_CWORD; i++)); do\n    case \"${command:+$command }${COMP_WORDS[i]}\" in\n      %s) command=\"${command:+$command }${COMP_WORDS[i]}\" ;;\n    esac\n  done\n", strings.Join(known, " | "))
	out.WriteString("  case \"$command:$prev\" in\n")
	for _, c := range all {
		for _, f := range c.flags {
			switch {
			case f.Enum != "":
				fmt.Fprintf(out, "    '%s:--%s') COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", c.path, f.Name, strings.Join(f.EnumSlice(), " "))
			case !f.IsBool():
				fmt.Fprintf(out, "    '%s:--%s') return ;;\n", c.path, f.Name)
			}
		}
	}
	out.WriteString("  esac\n  case \"$command\" in\n")
	for _, c := range all {
		fmt.Fprintf(out, "    '%s') words='%s' ;;\n", c.path, c.words())
	}
	out.WriteString("  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _securefiles securefiles\n")
}

func fishCompletion(out *strings.Builder, all []completion) {
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	help := map[string]string{}
	for _, c := range all {
		help[c.path] = c.help
	}
	for _, c := range all {
		seen := "__fish_use_subcommand"
		if c.path != "" {
			seen = ""
			for name := range strings.FieldsSeq(c.path) {
				seen += "__fish_seen_subcommand_from " + name + "; and "
			}
			seen = strings.TrimSuffix(seen, "; and ")
		}
		when := "complete -c securefiles -n " + quote(seen)
		for _, name := range c.commands {
			fmt.Fprintf(out, "%s -f -a %s -d %s\n", when, name, quote(help[strings.TrimSpace(c.path+" "+name)]))
		}
		if len(c.values) > 0 {
			fmt.Fprintf(out, "%s -f -a %s\n", when, quote(strings.Join(c.values, " ")))
		}
		for _, f := range c.flags {
			rest := " -d " + quote(f.Help)
			switch {
			case f.Enum != "":
				rest += " -x -a " + quote(strings.Join(f.EnumSlice(), " "))
			case !f.IsBool():
				rest += " -r"
			}
			fmt.Fprintf(out, "%s -l %s%s\n", when, f.Name, rest)
		}
	}
}
