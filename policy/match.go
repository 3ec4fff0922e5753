package policy

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"postern/internal/text"
)

// Match is what a handshake must have for a rule to take it: for every
// condition one of its values. It lists a key at most once, in the order of
// the table. Without a condition it takes every handshake.
type Match []Condition

// Condition is a key of a match and its values, in the form in which the
// program writes them. One without values takes nothing.
type Condition struct {
	Key    *Key
	Values []string
}

// maxInWords values of a condition are written out in words.
const maxInWords = 4

// String returns the condition in words, such as ports 993 and 995.
func (c Condition) String() string {
	switch n := len(c.Values); {
	case n == 0:
		return "no " + strings.TrimSuffix(c.Key.plural, " in") + " at all"
	case n == 1:
		return c.Key.singular + " " + c.Values[0]
	case n > maxInWords:
		return fmt.Sprintf("%s %s and %d more", c.Key.plural, strings.Join(c.Values[:maxInWords], ", "), n-maxInWords)
	default:
		return c.Key.plural + " " + strings.Join(c.Values[:n-1], ", ") + " and " + c.Values[n-1]
	}
}

// MarshalJSON writes an object with a list for each key, of numbers for ports.
func (m Match) MarshalJSON() ([]byte, error) {
	lists := make([]string, len(m))
	for i, c := range m {
		values := c.Values
		if !c.Key.numbers {
			values = text.Each(values, strconv.Quote)
		}
		lists[i] = strconv.Quote(c.Key.Name) + ":[" + strings.Join(values, ",") + "]"
	}
	return []byte("{" + strings.Join(lists, ",") + "}"), nil
}

// empty names a key that is set and lists nothing.
func (m Match) empty() string {
	for _, c := range m {
		if len(c.Values) == 0 {
			return c.Key.Name
		}
	}
	return ""
}

// of returns what m lists for a key.
func (m Match) of(key string) (values []string, ok bool) {
	i := slices.IndexFunc(m, func(c Condition) bool { return c.Key.Name == key })
	if i < 0 {
		return nil, false
	}
	return m[i].Values, true
}

// covers reports whether m takes all that o takes.
func (m Match) covers(o Match) bool {
	return !slices.ContainsFunc(m, func(c Condition) bool {
		values, ok := o.of(c.Key.Name)
		return !ok || slices.ContainsFunc(values, func(v string) bool {
			return !slices.ContainsFunc(c.Values, func(by string) bool { return by == v || c.Key.covers != nil && c.Key.covers(by, v) })
		})
	})
}

// sample returns a client that the match takes, where it takes any.
func (m Match) sample() (c Client) {
	for _, condition := range m {
		if len(condition.Values) > 0 {
			condition.Key.give(&c, condition.Values[0])
		}
	}
	return c
}

// index finds the rules for one key at a cost that does not grow with how much
// they list.
type index struct {
	key *Key
	// restricted are the rules that have the key in their match.
	restricted ruleSet
	// find returns those of them that list what the client has; nil is none.
	find func(Client) *ruleSet
}

func indexOf(k *Key, rules []*Rule) index {
	x := index{key: k}
	listed := make(map[string]*ruleSet)
	for i, r := range rules {
		values, ok := r.Match.of(k.Name)
		if ok {
			x.restricted.add(i)
		}
		for _, v := range values {
			if listed[v] == nil {
				listed[v] = new(ruleSet)
			}
			listed[v].add(i)
		}
	}
	x.find = k.find(listed)
	return x
}

// maxNames is how many rules and candidates a policy may have.
const maxNames = 200

// ruleSet is a bit for each rule, by its place in the policy.
type ruleSet [(maxNames + 63) / 64]uint64

func (s *ruleSet) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s ruleSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s *ruleSet) meets(o *ruleSet) bool {
	var common uint64
	for i := range s {
		common |= s[i] & o[i]
	}
	return common != 0
}

// join and drop change the set by those of another, which may be nil.
func (s *ruleSet) join(o *ruleSet) {
	for i := 0; o != nil && i < len(s); i++ {
		s[i] |= o[i]
	}
}

func (s *ruleSet) drop(o *ruleSet) {
	for i := 0; o != nil && i < len(s); i++ {
		s[i] &^= o[i]
	}
}

// first takes the first rule out of the set; -1 where there is none.
func (s *ruleSet) first() int {
	for i := range s {
		if s[i] != 0 {
			n := bits.TrailingZeros64(s[i])
			s[i] &^= 1 << n
			return i*64 + n
		}
	}
	return -1
}
