package policy

// PickKey is the key to answer with under a floor, or under the lenient configuration.
func (f Floor) PickKey(h *Hello, keys KeyTypes, lenientMode bool) KeyTypes {
	if lenientMode {
		f = lenient
	}
	_, key, _ := f.judge(h, keys)
	return key
}
