// Tries alerts: rules and series on standard input, what fires when on standard output. Expressions and texts are evaluated by Prometheus's own engine; only
// `for` is counted here, as Prometheus counts it: from the first evaluation that finds something, and anew after one that does not. `promtool test rules` does
// the same, and brings the clients of every cloud along.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

type input struct {
	// Between two scrapes.
	ScrapeSeconds int64 `json:"scrape_s"`
	// Between two evaluations.
	LookSeconds int64    `json:"look_s"`
	Rules       []rule   `json:"rules"`
	Series      []series `json:"series"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         model.Duration    `json:"for"`
	Annotations map[string]string `json:"annotations"`
}

// One value per scrape; null where it was not there.
type series struct {
	Labels map[string]string `json:"labels"`
	Values []*float64        `json:"values"`
}

// From the evaluation at which an alert fired to the last at which it did, in seconds from the first scrape.
type firing struct {
	Alert       string            `json:"alert"`
	Labels      map[string]string `json:"labels"`
	FromSeconds int64             `json:"from_s"`
	ToSeconds   int64             `json:"to_s"`
	Annotations map[string]string `json:"annotations"`
}

type sample struct {
	t int64
	f float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// Where a series is no more, Prometheus writes so.
func samples(one series, scrape int64) []chunks.Sample {
	var all []chunks.Sample
	for at, given := range one.Values {
		switch {
		case given != nil:
			all = append(all, sample{int64(at) * scrape, *given})
		case at > 0 && one.Values[at-1] != nil:
			all = append(all, sample{int64(at) * scrape, math.Float64frombits(value.StaleNaN)})
		}
	}
	return all
}

func queryable(all []storage.Series) storage.Queryable {
	byName := map[string][]storage.Series{}
	for _, one := range all {
		name := one.Labels().Get(labels.MetricName)
		byName[name] = append(byName[name], one)
	}
	choose := func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		var chosen, candidates = []storage.Series(nil), all
		for _, matcher := range matchers {
			if matcher.Name == labels.MetricName && matcher.Type == labels.MatchEqual {
				candidates = byName[matcher.Value]
			}
		}
	next:
		for _, one := range candidates {
			for _, matcher := range matchers {
				if !matcher.Matches(one.Labels().Get(matcher.Name)) {
					continue next
				}
			}
			chosen = append(chosen, one)
		}
		return &set{chosen, -1}
	}
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{SelectMockFunction: choose}}
}

type set struct {
	series []storage.Series
	at     int
}

func (s *set) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *set) At() storage.Series                { return s.series[s.at] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

func try(given input) ([]firing, error) {
	scrape, look := given.ScrapeSeconds*1000, given.LookSeconds*1000
	var all []storage.Series
	scrapes := 0
	for _, one := range given.Series {
		all = append(all, storage.NewListSeries(labels.FromMap(one.Labels), samples(one, scrape)))
		scrapes = max(scrapes, len(one.Values))
	}
	sort.Slice(all, func(i, j int) bool { return labels.Compare(all[i].Labels(), all[j].Labels()) < 0 })
	known := queryable(all)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	context := context.Background()
	var fired []firing
	for _, rule := range given.Rules {
		type active struct {
			since int64
			// Where it fires, its place among what fired.
			place int
		}
		before := map[string]active{}
		for at := int64(0); at < int64(scrapes)*scrape; at += look {
			query, err := engine.NewInstantQuery(context, known, nil, rule.Expr, time.UnixMilli(at))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rule.Alert, err)
			}
			result := query.Exec(context)
			vector, err := result.Vector()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rule.Alert, err)
			}
			now := map[string]active{}
			for _, found := range vector {
				named := labels.NewBuilder(found.Metric).Del(labels.MetricName).Labels()
				key := named.String()
				one, was := before[key]
				if !was {
					one = active{at, -1}
				}
				if at-one.since >= time.Duration(rule.For).Milliseconds() {
					if one.place < 0 {
						texts, err := expanded(rule, named, found, at)
						if err != nil {
							return nil, err
						}
						one.place = len(fired)
						fired = append(fired, firing{rule.Alert, named.Map(), at / 1000, 0, texts})
					}
					fired[one.place].ToSeconds = at / 1000
				}
				now[key] = one
			}
			query.Close()
			before = now
		}
	}
	return fired, nil
}

func expanded(rule rule, named labels.Labels, found promql.Sample, at int64) (map[string]string, error) {
	const definitions = "{{$labels := .Labels}}{{$value := .Value}}"
	data := template.AlertTemplateData(named.Map(), nil, "", found)
	texts := map[string]string{}
	for name, text := range rule.Annotations {
		// A label that is not there is an error here, and an empty word in what people read.
		expander := template.NewTemplateExpander(context.Background(), definitions+text, rule.Alert, data, model.Time(at), nil, nil, []string{"missingkey=error"})
		text, err := expander.Expand()
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", name, rule.Alert, err)
		}
		texts[name] = text
	}
	return texts, nil
}

func main() {
	var given input
	err := json.NewDecoder(os.Stdin).Decode(&given)
	if err == nil {
		var fired []firing
		if fired, err = try(given); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(fired)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "alerts:", err)
		os.Exit(1)
	}
}
