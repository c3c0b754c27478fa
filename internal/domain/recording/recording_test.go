package recording_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/domain/recording"
)

var start = time.Unix(0, 0).UTC()

func TestFormsSayTheSame(t *testing.T) {
	want := []recording.Sample{
		{At: start, Values: map[string]float64{"orders": 120, "s1-x": 3.5}},
		{At: start.Add(30 * time.Second), Values: map[string]float64{"orders": 90}},
		{At: start.Add(time.Minute), Values: map[string]float64{"orders": 0}, Failed: []string{"s1-x"}},
	}
	for name, text := range map[string]string{
		"a table":    "time,orders,s1-x\n0,120,3.5\n# a pause\n30,90,\n60,0,failed\n",
		"with dates": "time,orders,s1-x\n1970-01-01T00:00:00Z,120,3.5\n1970-01-01T00:00:30Z,90,\n1970-01-01T00:01:00Z,0,failed",
		"JSON":       `{"time": 0, "values": {"orders": 120, "s1-x": 3.5}}` + "\n" + `{"time":"1970-01-01T00:00:30Z","values":{"orders":90}} {"time":60,"values":{"orders":0,"s1-x":null}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := recording.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPrometheusAnswersAreRecordings(t *testing.T) {
	got, err := recording.Parse([]byte(`{"status":"success","data":{"resultType":"matrix","result":[
		{"metric":{"__name__":"keda_scaler_metrics_value","metric":"s0-kafka","scaledObject":"orders"},"values":[[15,"4"],[30.5,"2"]]},
		{"metric":{"__name__":"depth"},"values":[[30.5,"7"]]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []recording.Sample{
		{At: start.Add(15 * time.Second), Values: map[string]float64{"s0-kafka": 4}},
		{At: start.Add(30500 * time.Millisecond), Values: map[string]float64{"s0-kafka": 2, "depth": 7}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMistakesAreToldWithTheirPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":            {" \n", "there is nothing in it"},
		"no samples":         {"time,orders\n", "there is nothing in it"},
		"no names":           {"0,1\n1,2", "is to name the columns"},
		"no time":            {"time,a\nsoon,1", `sample 1: "soon" is neither a time`},
		"no number":          {"time,a\n0,1\n1,many", `sample 2: a is "many", which is no number`},
		"a cell too many":    {"time,a\n0,1,2", "wrong number of fields"},
		"times that go back": {"time,a\n10,1\n10,2", "sample 2: its times do not grow"},
		"another field":      {`{"time":0,"value":{}}`, "sample 1: "},
		"no range":           {`{"status":"success","data":{"resultType":"vector","result":[]}}`, "no range of values"},
		"Prometheus' error":  {`{"status":"error","error":"parse error"}`, "parse error"},
		"two of a name": {`{"status":"success","data":{"resultType":"matrix","result":[
			{"metric":{"metric":"a"},"values":[[1,"1"]]},{"metric":{"metric":"a"},"values":[[1,"1"]]}]}}`, "ask for those of one object"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := recording.Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse() = %v, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}
