package metricsapi

import (
	"math"
	"strings"
	"testing"
)

const (
	inJSON = `{"components":[{"id": "82328e93e", "tasks": 32, "str": "64", "k":"1k","wrong":"NaN","on":true,"none":null}],"count":2.43,"big":9007199254740993}`
	inYAML = "components: [{id: 82328e93e, tasks: 32, str: '64', k: 1k, wrong: NaN, on: true, none: null, huge: 18446744073709551615}]\ncount: 2.43\n1: {2: 3}\nhex: 0x1f\ninf: .inf\n"
	inXML  = `<?xml version="1.0"?><!-- c --><stats at="now" size="9"><queue name="a"><tasks unit="x"> 32 </tasks></queue>` +
		`<queue name="b"><tasks>64</tasks><k>1k</k><wrong>NaN</wrong><empty/></queue><a:size xmlns:a="urn:a">5</a:size></stats>`
	inText = "# HELP backend_queue_size Total number of items\n	# TYPE backend_queue_size counter\n" +
		"backend_queue_size{queueName=\"zero\"} 0\r\nbackend_queue_size{queueName=\"one\"} 1\r\n" +
		"backend_queue_size{queueName=\"two\", instance=\"random\"} 2\nbackend_queue_size{queueName=\"two\", instance=\"ze\\\"ro\"} 20\n" +
		"bare 4.5\n# TYPE level gauge\nlevel{empty=\"\"} -3\n# TYPE took summary\ntook_sum 3\ntook_count 4\n{\"my.metric\",\"my.label\"=\"x\"} 6\n" +
		"# TYPE random_metric counter\nrandom_metric 10"
)

func TestNumbersInBodies(t *testing.T) {
	for name, test := range map[string]struct {
		format, body, location string
		want                   float64
		failure                string
	}{
		"a number":                      {"json", inJSON, "count", 2.43, ""},
		"a string":                      {"json", inJSON, "components.0.str", 64, ""},
		"a number in a list":            {"json", inJSON, "components.0.tasks", 32, ""},
		"a quantity":                    {"json", inJSON, "components.0.k", 1000, ""},
		"how many there are":            {"json", inJSON, "components.#", 1, ""},
		"a query":                       {"json", inJSON, `components.#(id=="82328e93e").tasks`, 32, ""},
		"a whole body":                  {"json", "17\n", "@this", 17, ""},
		"a string that is no number":    {"json", inJSON, "components.0.wrong", 0, `valueLocation "components.0.wrong" points to a string that is not parseable as a Quantity`},
		"a bool":                        {"json", inJSON, "components.0.on", 0, `valueLocation "components.0.on" must point to a numeric value or a string parseable as a Quantity, got True`},
		"null":                          {"json", inJSON, "components.0.none", 0, "got Null"},
		"nothing":                       {"json", inJSON, "components.1.tasks", 0, "got Null"},
		"a list":                        {"json", inJSON, "components", 0, "got JSON"},
		"words after a number":          {"json", `{"n":"7 jobs"}`, "n", 0, "not parseable as a Quantity"},
		"no body":                       {"json", "", "n", 0, "got Null"},
		"yaml: a number":                {"yaml", inYAML, "count", 2.43, ""},
		"yaml: a string":                {"yaml", inYAML, "components.0.str", 64, ""},
		"yaml: in a list":               {"yaml", inYAML, "components.0.tasks", 32, ""},
		"yaml: a quantity":              {"yaml", inYAML, "components.0.k", 1000, ""},
		"yaml: numbers as names":        {"yaml", "a: {1: {2: 3}}", "a.1.2", 3, ""},
		"yaml: numbers at the top":      {"yaml", "1: 3", "1", 3, ""},
		"yaml: hexadecimal":             {"yaml", "hex: 0x1f", "hex", 31, ""},
		"yaml: more than there is":      {"yaml", "count: 2.43", "count.and.more", 2.43, ""},
		"yaml: JSON":                    {"yaml", inJSON, "components.0.tasks", 32, ""},
		"yaml: not a number":            {"yaml", "w: abc", "w", 0, "not parseable as a Quantity"},
		"yaml: a bool":                  {"yaml", "on: true", "on", 0, "got bool"},
		"yaml: null":                    {"yaml", "none: null", "none", 0, "got <nil>"},
		"yaml: beyond the list":         {"yaml", "a: [1]", "a.1", 0, "key '1' not found in path 'a.1'"},
		"yaml: an index of more digits": {"yaml", "a: [1]", "a.00", 0, "key '00' not found in path 'a.00'"},
		"yaml: a name in a list":        {"yaml", "a: [1]", "a.b", 0, "key 'b' not found in path 'a.b'"},
		"yaml: a list":                  {"yaml", "a: {b: [1]}", "a.b", 0, "path 'a.b' does not lead to a value"},
		"yaml: a list at the top":       {"yaml", "- 1", "0", 0, "cannot unmarshal"},
		"yaml: a bomb":                  {"yaml", bomb(), "i.0", 0, "excessive aliasing"},
		"xml: a number":                 {"xml", inXML, "stats.queue.0.tasks", 32, ""},
		"xml: another":                  {"xml", inXML, "stats.queue.1.tasks", 64, ""},
		"xml: the first of one":         {"xml", inXML, "stats.0.queue.1.tasks.0", 64, ""},
		"xml: a quantity":               {"xml", inXML, "stats.queue.1.k", 1000, ""},
		"xml: an element's before an attribute's": {"xml", inXML, "stats.size", 5, ""},
		"xml: an attribute":                       {"xml", `<s size="9"/>`, "s.size", 9, ""},
		"xml: of many, none is chosen":            {"xml", inXML, "stats.queue.tasks", 0, "key 'tasks' not found in path 'stats.queue.tasks'"},
		"xml: beyond":                             {"xml", inXML, "stats.queue.2.tasks", 0, "key '2' not found"},
		"xml: not a number":                       {"xml", inXML, "stats.queue.1.wrong", 0, "not parseable as a Quantity"},
		"xml: empty":                              {"xml", inXML, "stats.queue.1.empty", 0, "not parseable as a Quantity"},
		"xml: elements":                           {"xml", inXML, "stats.queue.1", 0, "does not lead to a value"},
		"xml: without the root":                   {"xml", inXML, "queue", 0, "key 'queue' not found"},
		"xml: half of it":                         {"xml", "<a><b>1</b>", "a.b", 0, "reading XML: XML syntax error"},
		"xml: none":                               {"xml", "7", "a", 0, "reading XML: there is no element"},
		"text: no labels":                         {"prometheus", inText, "random_metric", 10, ""},
		"text: no type":                           {"prometheus", inText, "bare", 4.5, ""},
		"text: below zero":                        {"prometheus", inText, `level{empty=""}`, -3, ""},
		"text: one label":                         {"prometheus", inText, `backend_queue_size{queueName="one"}`, 1, ""},
		"text: the first of many":                 {"prometheus", inText, `backend_queue_size{queueName="two"}`, 2, ""},
		"text: all labels":                        {"prometheus", inText, `backend_queue_size{queueName="two", instance="ze\"ro"}`, 20, ""},
		"text: any operator":                      {"prometheus", inText, `backend_queue_size{queueName!="one"}`, 1, ""},
		"text: the name as a label":               {"prometheus", inText, `{__name__="bare"}`, 4.5, ""},
		"text: names of any kind":                 {"prometheus", inText, `{"my.metric",'my.label'='x'}`, 6, ""},
		"text: a label that is absent":            {"prometheus", inText, `bare{x=""}`, 0, `value bare{x=""} not found`},
		"text: a summary":                         {"prometheus", inText, "took", 0, "value took not found"},
		"text: no such metric":                    {"prometheus", inText, "none", 0, "metric 'none' not found"},
		"text: a wrong selector":                  {"prometheus", inText, "backend_queue_size{invalid=test}", 0, "label invalid has no string as value"},
		"text: something else":                    {"prometheus", "<html>", "a", 0, "prometheus format parsing error"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := formats[test.format]([]byte(test.body), test.location)
			if test.failure == "" && (err != nil || math.Abs(got-test.want) > 1e-9) {
				t.Errorf("%v, %v; want %v", got, err, test.want)
			}
			if test.failure != "" && (err == nil || !strings.Contains(err.Error(), test.failure)) {
				t.Errorf("%v, %v; want an error: %s", got, err, test.failure)
			}
		})
	}
}

// bomb is a document of a few hundred bytes that would unfold to a billion.
func bomb() string {
	var b strings.Builder
	b.WriteString("a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c <= 'i'; c++ {
		b.WriteString(string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n")
	}
	return b.String()
}

func TestSelectors(t *testing.T) {
	for selector, want := range map[string]string{
		"up": "up", " a:b_1 ": "a:b_1", "up{}": "up", "up {a = \"b\" , c='d',}": "up a=b c=d", "up{a=`\\n`}": "up a=\\n",
		`up{a="\u00e9\x41\\"}`: "up a=éA\\", `{"a.b"}`: "a.b", `{"a.b", "c.d"=~"e"}`: "a.b c.d=e", `up{__name__="down"}`: "up",
		`up{a="é"}`: "up a=é", "{}": "",
		"": "!", "1up": "!", "up{": "!", "up{a": "!", "up{a=": "!", `up{a="`: "!", `up{a="b"`: "!", `up{a="b" c="d"}`: "!", `up{a="b"}x`: "!",
		`up{="b"}`: "!", `up{a="\q"}`: "!", `up{a=='b'}`: "!", "up{a=`b}": "!", "up[5m]": "!", "up{a=\"b\nc\"}": "!", "up{,}": "!",
	} {
		name, labels, err := readSelector(selector)
		got := name
		for _, l := range labels {
			got += " " + l.name + "=" + l.value
		}
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("%s is %q, %v; want %q", selector, got, err, want)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add(`up{a="b",'c'!~"d"}`, "<a><b>1</b></a>", "a: [1]")
	f.Fuzz(func(_ *testing.T, selector, document, other string) {
		_, _, _ = readSelector(selector)
		_, _ = fromXML([]byte(document), selector)
		_, _ = fromYAML([]byte(other), selector)
		_, _ = fromText([]byte(document), selector)
	})
}
