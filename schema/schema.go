// Package schema has the JSON schemas of what people write, for editors. A test makes
// them from the types that read it and the pages that describe it.
package schema

import "embed"

// FS holds config.schema.json, of a configuration, test.schema.json, of policy tests,
// and audit.schema.json, of a record of the audit trail; postgres.sql, the table that
// holds records; and links.openapi.json, the API of links.
//
//go:embed config.schema.json test.schema.json audit.schema.json postgres.sql links.openapi.json
var FS embed.FS
