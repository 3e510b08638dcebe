package cli

import (
	"securefiles/schema"

	"github.com/alecthomas/kong"
)

type schemaCommand struct {
	Of string `arg:"" enum:"config,test,audit,postgres,links" help:"config for securefiles.yaml, test for policy tests, audit for a record of the audit trail; postgres for the SQL of the table that holds records; links for the HTTP API of links (OpenAPI)."`
}

// Help shows an example.
func (schemaCommand) Help() string {
	return "Editors with a YAML language server complete and check a file whose first line names its schema:\n  # yaml-language-server: $schema=securefiles.schema.json\n\nExample:\n  securefiles schema config > securefiles.schema.json"
}

func (cmd *schemaCommand) Run(env Env) error {
	name := cmd.Of + ".schema.json"
	switch cmd.Of {
	case "postgres":
		name = "postgres.sql"
	case "links":
		name = "links.openapi.json"
	}
	text, err := schema.FS.ReadFile(name)
	if err != nil {
		return err
	}
	_, err = env.Stdout.Write(text)
	return err
}

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help shows an example.
func (completionCommand) Help() string {
	return "Examples:\n  securefiles completion bash > /etc/bash_completion.d/securefiles\n  securefiles completion zsh > ~/.securefiles.zsh     # and in ~/.zshrc, after compinit: source ~/.securefiles.zsh\n  securefiles completion fish > ~/.config/fish/completions/securefiles.fish"
}

func (cmd *completionCommand) Run(env Env, parser *kong.Kong) error {
	return writeCompletion(env.Stdout, cmd.Shell, parser.Model.Node)
}
