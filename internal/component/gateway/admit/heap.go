package admit

// heap keeps slots ordered by load, so that the choice is the exact minimum for any number of
// instances at the cost of a few comparisons. Written out because container/heap's interface calls
// are most of its cost and this runs twice a request.
type heap []*Slot

// before orders by load, then by who was used longest ago.
func before(a, b *Slot) bool {
	if x, y := a.load(), b.load(); x != y {
		return x < y
	}
	return a.turn < b.turn
}

// push adds a slot that is outside.
func (h *heap) push(s *Slot) {
	s.index = len(*h)
	*h = append(*h, s)
	h.up(s.index)
}

// remove takes a slot out.
func (h *heap) remove(s *Slot) {
	i, end := s.index, len(*h)-1
	h.swap(i, end)
	(*h)[end] = nil
	*h = (*h)[:end]
	s.index = -1
	if i < end {
		h.fix((*h)[i])
	}
}

// fix restores the order after a slot's load or turn changed.
func (h *heap) fix(s *Slot) {
	h.up(s.index)
	h.down(s.index)
}

func (h *heap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !before((*h)[i], (*h)[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *heap) down(i int) {
	for {
		least := 2*i + 1
		if least >= len(*h) {
			return
		}
		if r := least + 1; r < len(*h) && before((*h)[r], (*h)[least]) {
			least = r
		}
		if !before((*h)[least], (*h)[i]) {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h *heap) swap(i, j int) {
	s := *h
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}
