package cli

// auditCommand is what can be done with the record of decisions and deliveries.
type auditCommand struct {
	Verify auditVerifyCommand `cmd:"" help:"Say whether records were changed, removed or moved."`
	Key    auditKeyCommand    `cmd:"" help:"Make a key that signs a chain of records."`
}

// Help shows an example.
func (auditCommand) Help() string { return auditVerifyCommand{}.Help() }
