package quota

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A configuration is the quotas in the form in which names are looked up. It never changes once made.
type configuration struct {
	names     map[string]target // names and aliases of all but templates
	templates []template        // the longest prefix first
}

// A target is what a name stands for.
type target struct {
	name  string // canonical
	rules *rules
}

type template struct {
	prefix string // of the name or alias that was used
	name   string // prefix of the canonical name
	rules  *rules
}

// resolve returns what name stands for: an exact name first, then the longest template.
func (c *configuration) resolve(name string) (target, error) {
	if found, ok := c.names[name]; ok {
		return found, nil
	}
	// An alias of a template leads to a name that is looked up in its turn: that name may have a quota of its own.
	for canonical, hops := name, 0; hops < mostHops && len(canonical) <= maxNameBytes && printableName(canonical); hops++ {
		if found, ok := c.names[canonical]; ok {
			return found, nil
		}
		at := slices.IndexFunc(c.templates, func(one template) bool {
			return len(canonical) > len(one.prefix) && strings.HasPrefix(canonical, one.prefix)
		})
		if at < 0 {
			break
		}
		one := c.templates[at]
		if one.prefix == one.name {
			return target{canonical, one.rules}, nil
		}
		canonical = one.name + strings.TrimPrefix(canonical, one.prefix)
	}
	return target{}, fmt.Errorf("%w: %s is no quota, alias or template: check the spelling or configure it",
		ErrUnknownQuota, quoted(name))
}

const (
	maxNameBytes = 256
	mostHops     = 8 // from alias to alias
)

// compile checks quotas and makes a configuration of them.
func (cfg *Config) compile(quotas []Quota, zones *zones, history func(string) []DaySummary) (*configuration, error) {
	if err := checkQuotas(quotas, cfg.Location); err != nil {
		return nil, err
	}
	c := &configuration{names: make(map[string]target)}
	for i := range quotas {
		r, err := cfg.rules(&quotas[i], zones, history)
		if err != nil {
			return nil, fmt.Errorf("%w: quota %q: %w", ErrInvalidConfig, quotas[i].Name, err)
		}
		name, isTemplate := strings.CutSuffix(quotas[i].Name, "*")
		for _, alias := range append([]string{quotas[i].Name}, quotas[i].Aliases...) {
			if isTemplate {
				c.templates = append(c.templates, template{strings.TrimSuffix(alias, "*"), name, r})
			} else {
				c.names[alias] = target{name, r}
			}
		}
	}
	slices.SortStableFunc(c.templates, func(x, y template) int { return len(y.prefix) - len(x.prefix) })
	return c, nil
}

// rules fills in every default of a quota's limits.
func (cfg *Config) rules(q *Quota, zones *zones, history func(string) []DaySummary) (*rules, error) {
	r := &rules{
		template: strings.HasSuffix(q.Name, "*"), foreign: q.Name == "", ttl: cfg.ReservationTTL, onExpiry: cfg.OnExpiry, location: cfg.Location,
		zone: zones.load, history: history,
	}
	for _, limit := range q.Limits {
		limit.Unit, limit.Window = limit.unit(), limit.Window.in(cfg.Location)
		limit.AlertThresholds = slices.Clone(limit.AlertThresholds)
		location, err := zones.load(limit.Window.zone)
		if err != nil {
			return nil, err
		}
		r.limits = append(r.limits, limitRule{limit, newLimitKey(limit.Unit, limit.Window, location), cfg.thresholds(limit)})
		if limit.Estimate == 0 {
			continue
		}
		at := limit.Unit.place()
		before, _ := r.estimates.exactly(at, limit.Unit)
		r.estimates.set(at, limit.Unit, max(before, limit.Estimate))
	}
	return r, nil
}

// thresholds are those at which a limit alerts, ascending.
func (cfg *Config) thresholds(limit Limit) []int {
	if limit.NoAlerts || limit.Window.kind == kindInFlight {
		return nil
	}
	list := limit.AlertThresholds
	if len(list) == 0 {
		if limit.Window.length != 0 && limit.Window.length < time.Hour {
			return nil
		}
		list = cfg.AlertThresholds
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// zones keeps the time zones that have been loaded.
type zones struct {
	mu     sync.Mutex // protects loaded
	loaded map[string]*time.Location
}

// load returns a zone by its name; "" is UTC.
func (z *zones) load(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if found, ok := z.loaded[name]; ok {
		return found, nil
	}
	loaded, err := time.LoadLocation(name)
	if err != nil {
		return nil, err
	}
	if z.loaded == nil {
		z.loaded = make(map[string]*time.Location)
	}
	z.loaded[name] = loaded
	return loaded, nil
}
