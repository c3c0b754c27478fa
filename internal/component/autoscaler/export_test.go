package autoscaler

// Live returns how many revisions are measured.
func (a *Autoscaler) Live() int {
	a.liveMu.Lock()
	defer a.liveMu.Unlock()
	return len(a.live)
}
