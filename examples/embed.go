// Package examples has the files that securefiles init writes.
package examples

import "embed"

// Starter holds them, below the directory starter.
//
//go:embed starter
var Starter embed.FS
