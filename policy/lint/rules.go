package lint

import "securefiles/policy"

// A Rule is one thing that Check looks for. docs/rules.md has a section for
// each, with an example and its mend.
type Rule struct {
	ID string `json:"id"`
	// Severity is the least that a finding has: SeverityError where each keeps
	// a policy from being served, and none can be disabled.
	Severity policy.Severity `json:"severity"`
	// Ignorable says that a comment above the line takes a finding back: it does
	// so with every warning, and with errors that are judgements about what
	// somebody meant.
	Ignorable bool `json:"ignorable"`
	// Summary is what the rule finds, Remedy what to do about it.
	Summary string `json:"summary"`
	Remedy  string `json:"remedy"`
}

// severities are those of a rule: the least, and whether a comment takes a finding
// back.
type severities struct {
	least     policy.Severity
	ignorable bool
}

// Rules returns all that Check looks for, by topic.
func Rules() []Rule {
	w, e := severities{policy.SeverityWarning, true}, severities{policy.SeverityError, false}
	judged := severities{policy.SeverityError, true}
	var rules []Rule
	for _, r := range []struct {
		id string
		severities
		summary, remedy string
	}{
		// Files.
		{"read", e, "a file cannot be read", "Make the file readable for the service, or mend its path in the configuration."},
		{"file-size", e, "the policy is larger than 1 GiB", "Split the policy, or use patterns instead of single files."},
		{"policy-empty", e, "the policy has no p line", "Add a p line, or set policy.allow_shrink to refuse everybody."},
		{"policy-shrunk", e, "the policy has lost over half of its lines since it was loaded", "Restore the file, or set policy.allow_shrink."},
		{"policy-cut", e, "the file is the beginning of what is served, and without lines that deny", "Write the rest, or send SIGHUP to say that it is meant."},
		{"encoding", w, "a byte order mark, lone carriage returns, or bytes that are no UTF-8", "Save the file as UTF-8 without a byte order mark, with line feeds."},
		{"character", w, "a control character", "Remove it."},
		{"line-length", e, "a line of more than 64 KiB", "Split the line."},
		{"too-many", w, "more findings than are shown", "Mend those that are shown first."},
		{"not-checked", w, "a check gave up, for the policy is too entangled", "Nothing need be wrong; less was looked at than usual."},
		{"suppression", w, "a comment that is meant for check and does nothing", "Write # securefiles:ignore RULE: reason above the line, or remove the comment."},

		// Lines.
		{"line-type", w, "a line that begins with nothing that the model defines", "Begin a line with p, g or #, in lower case, and separate its fields by commas."},
		{"field-count", e, "a line with more or fewer fields than the model has", "Give the line the fields of policy_definition; put a field with a comma into double quotes."},
		{"empty", w, "an empty field", "Fill it in."},
		{"blank", w, "a blank at an end of a field", "Remove it: it would be part of the name."},
		{"comment", w, "a comment behind a line", "Put it on a line of its own: it would be part of the field."},
		{"quotes", w, "quotes that do not do what they seem to", "Put double quotes around the whole field, or none; double a quote inside."},
		{"comma", w, "a line that Casbin would drop as a duplicate, because of its commas", "Write it without the commas, for instance with a pattern."},
		{"effect", w, "an effect that is neither allow nor deny, or that the model ignores", "Write allow or deny, in lower case."},
		{"priority", w, "a priority that is no whole number", "Write a whole number."},
		{"date", e, "a beginning or an end that is no time, or comes in the wrong order", "Write a day, 2026-12-31, or a moment, 2026-12-31 18:00:00; _ where there is none; the beginning first."},
		{"ended", w, "a line whose end is over", "Remove it; where it was the last that gives a role, remove the role's lines too."},
		{"duplicate", w, "a line that stands there twice", "Remove one."},

		// Who.
		{"role-unused", w, "a role that is given to somebody and that no line uses", "Correct the name, or the order of the two names, or remove the line."},
		{"role-name", judged, "a role that nobody can be given", "Give a role; groups come from an identity source."},
		{"role-tree", e, "roles that form no tree, where the model ranks them", "Give each name one role."},
		{"role-cycle", w, "roles that have each other", "Remove the link that is the wrong way round."},
		{"role-depth", w, "a role that is too many links away to be followed", "Shorten the chain, or set policy.role_depth."},
		{"role-unheld", w, "a role that nobody has", "Give it to somebody with a g line, or correct its name."},
		{"subject-everyone", w, "a name by which everybody is meant", "Write @anyone, or @authenticated."},
		{"subject-unknown", w, "a subject that the configuration's users do not have", "Correct the name, add the user, or remove the line."},
		{"similar-names", w, "names that differ by next to nothing", "Use one spelling."},
		{"subject-impossible", w, "a subject or group that no identity source may vouch for", "Correct the name."},
		{"subject-language", w, "a subject that is written like a pattern or an expression", "Write a line for each subject, or a role."},
		{"subject-free", w, "a name that whoever an identity source calls so would have", "Call a role role:NAME, or give it to somebody; of a user, take the finding back."},
		{"no-grant", w, "a subject that is denied things and allowed nothing", "Allow it something, or remove its lines."},
		{"user-is-role", w, "a user who is called like a role", "Rename one of them."},

		// What.
		{"pattern", e, "a pattern that cannot be compiled", "Escape with a backslash what is meant literally."},
		{"pattern-size", w, "a pattern that takes long on a long path", "Repeat less, begin the pattern with ^, give braces fewer alternatives, or write several lines."},
		{"pattern-unmatchable", w, "a pattern that no path matches", "Write the path as below the download: decoded, from its slash on."},
		{"pattern-download", w, "a pattern that begins with the download's own URL", "Leave the URL out: paths begin below it."},
		{"pattern-variable", w, "$sub or $group where it stands for nobody, or something else in its place", "Write $sub or $group as a whole segment of the path."},
		{"pattern-encoded", w, "a pattern that is written like a URL", "Write the character itself, and no query."},
		{"pattern-alternative", w, "a | that splits a pattern of keyMatch2 to keyMatch5", "Write a line for each half."},
		{"pattern-rest", w, "text after the * of keyMatch or inside a name, which counts for nothing", "End the pattern or the segment there, or use globMatch in the model."},
		{"pattern-prefix", w, "a * of keyMatch that also covers longer names", "End the pattern with /*."},
		{"pattern-star", w, "a * of keyMatch2 to keyMatch5 that repeats a letter", "Use /* alone, or globMatch in the model."},
		{"pattern-double-star", w, "a ** that stays on one level", "Put it between slashes: /**/."},
		{"pattern-brackets", w, "brackets of a file name that are read as a pattern", "Escape them with a backslash."},
		{"pattern-backslash", w, "a backslash that separates directories", "Separate directories by a slash."},
		{"pattern-metacharacter", w, "a character of a regular expression in keyMatch2 to keyMatch5", "Escape it with a backslash."},
		{"pattern-language", w, "a pattern in the language of another function", "Write it as the model's function reads it."},
		{"pattern-start", w, "a * of keyMatch2 to keyMatch5 in the first place, which matches in the middle of a path", "Begin the pattern with a slash."},
		{"pattern-dot", w, "a dot that stands for any character", "Escape it with a backslash."},
		{"pattern-level", w, "a denial that leaves out a directory or what is deeper in it", "Deny /x/** as well as what is allowed."},
		{"regex-unanchored", w, "a regular expression that matches in the middle of a path", "Begin it with ^ and end it with $."},
		{"similar-paths", w, "directories that differ by case alone", "Use one spelling: the file system's."},
		{"invisible", w, "a character that cannot be seen", "Remove it, or write an ordinary blank."},
		{"confusable", w, "letters of two scripts in one word, or a character that looks like another", "Type the word again."},
		{"unicode-form", w, "text that is not in composed form (NFC)", "Type it again, or convert the file to NFC."},
		{"action", w, "an action that no request has", "Write read, list or share, in lower case, or * where the matcher has it."},
		{"domain", w, "a domain that no download has", "Write the name of a download."},
		{"rule", e, "a rule of the policy that cannot be evaluated", "Mend the expression; write it as in the matcher."},
		{"line-fails", w, "a line for which a part of the matcher cannot be evaluated", "Write what the function of that part reads."},

		// Lines together.
		{"redundant", w, "a line that makes no difference", "Remove it."},
		{"overruled", w, "a line that another one always overrules", "Narrow the other one, or remove this one."},
		{"contradiction", w, "two lines that say the opposite of the same", "Remove one of them."},
		{"deny-unmet", w, "a deny of what no line allows", "Correct the path, or remove the line."},
		{"denies-everything", w, "a line that denies everything to everybody", "Remove it: what no line allows is refused."},
		{"open-to-anyone", w, "a line that lets everybody have everything", "Name the part that is public."},
		{"no-effect", w, "a line of an effect that the model does not look for", "Remove it, or change policy_effect."},

		{"slow", w, "over a thousand lines that each decision for them must look at", "Let paths differ before the first wildcard or behind the last, or give the matcher a part that names the subject or the path."},

		// Models.
		{"model-syntax", e, "a model that Casbin reads in another way than it is written", "Mend the line."},
		{"model-comment", judged, "a comment behind a setting, which cuts the setting short", "Put it on a line of its own."},
		{"model-section", w, "a section or a key that is missing, unknown or empty", "Give the model the sections of securefiles init."},
		{"model-duplicate", e, "something that stands there twice, of which the last would win", "Remove one."},
		{"model-request", w, "a name in request_definition that no request has", "Use sub, obj, act, dom, ip, host."},
		{"model-policy", e, "a name in policy_definition that means nothing", "Call the effect eft and the priority priority."},
		{"model-roles", w, "a role definition that Casbin passes over, or that is not supported", "Define g = _, _, or g = _, _, _ with domains, with (_, _) behind it for dates, and ask it in the matcher."},
		{"model-effect", w, "an effect that does not do what it seems to", "Use one of Casbin's five, to the letter, and give policy_definition an eft."},
		{"model-matcher", e, "a matcher that fails or that means something else", "Mend the expression."},
		{"model-literal", e, "a literal that Casbin would change", "Put the text into the policy."},
		{"model-domain", judged, "several downloads, and a model that does not ask which", "Add dom to request_definition, policy_definition and the matcher, as the model of securefiles init has it."},
		{"model-superuser", w, "an alternative for which every line matches, those that deny too", "Add && p.eft == \"allow\" to it."},
		{"model-open", w, "a way to match that does not ask who, or not for what", "Ask r.sub and r.obj in each alternative; put alternatives of one part into parentheses."},
		{"model-unused", w, "a name that the matcher never asks", "Ask it in the matcher, or remove it."},
	} {
		rules = append(rules, Rule{r.id, r.least, r.ignorable, r.summary, r.remedy})
	}
	return rules
}
