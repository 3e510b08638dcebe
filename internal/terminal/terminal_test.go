package terminal_test

import (
	"fmt"

	"securefiles/internal/terminal"
)

func ExamplePrintable() {
	for _, text := range []string{"/projekte/Übersicht.pdf", "/a\x1b[2J", "/a\u202egpj.exe", "/\xff"} {
		fmt.Println(terminal.Printable(text))
	}
	// Output:
	// /projekte/Übersicht.pdf
	// /a\x1b[2J
	// /a\u202egpj.exe
	// /\xff
}
