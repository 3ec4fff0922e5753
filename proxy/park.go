//go:build linux

package proxy

import "sync"

// lot is where pollers park. A slot that was left is given to another one; its
// turn tells an event for that one from a late event for the one before.
type lot struct {
	epoll *epoll

	mu     sync.Mutex
	slots  []slot
	free   []int32
	closed bool
}

type slot struct {
	p    *poller
	turn int32
}

// openLot makes a lot; watch has to run, and close ends it.
func openLot() (l *lot, err error) {
	l = new(lot)
	l.epoll, err = newEpoll(l.happened)
	return l, err
}

// close ends the lot, and resumes who is still parked.
func (l *lot) close() {
	l.mu.Lock()
	l.closed = true
	var parked []*poller
	for i, s := range l.slots {
		if s.p != nil {
			parked = append(parked, l.leave(int32(i)))
		}
	}
	l.mu.Unlock()
	l.epoll.close()
	for _, p := range parked {
		p.resume()
	}
}

// park puts p aside until there is something to read, its connection is
// closed, or it is told to stay; then it is resumed. Where park returns true
// that may have happened already, and p belongs to another goroutine. It
// returns false where p cannot be parked.
func (p *poller) park() bool {
	l := p.lot
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.staying || l.closed {
		return false
	}
	i := l.take(p)
	ev := event{i, l.slots[i].turn}
	var failed error
	err := p.raw.Control(func(fd uintptr) { failed = l.epoll.arm(descriptor(fd), ev, p.known) })
	if err != nil || failed != nil {
		l.leave(i)
		return false
	}
	p.known = true
	return true
}

// stay resumes p if it is parked, and keeps it from parking again.
func (p *poller) stay() {
	p.lot.mu.Lock()
	p.staying = true
	parked := p.parked
	if parked {
		p.lot.leave(p.slot)
	}
	p.lot.mu.Unlock()
	if parked {
		p.resume()
	}
}

// take gives p a slot; mu is held.
func (l *lot) take(p *poller) (i int32) {
	if n := len(l.free); n > 0 {
		i = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		i = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	l.slots[i].p = p
	p.slot, p.parked = i, true
	return i
}

// leave empties a slot; mu is held.
func (l *lot) leave(i int32) *poller {
	p := l.slots[i].p
	l.slots[i] = slot{turn: l.slots[i].turn + 1}
	l.free = append(l.free, i)
	p.parked = false
	return p
}

// watch resumes the pollers that there is something to read for, until close.
func (l *lot) watch() {
	for l.epoll.wait() == nil {
	}
}

// happened resumes the poller that an event is for, if it is still parked.
func (l *lot) happened(e event) {
	l.mu.Lock()
	var p *poller
	if s := l.slots[e.key]; s.p != nil && s.turn == e.turn {
		p = l.leave(e.key)
	}
	l.mu.Unlock()
	if p != nil {
		p.resume()
	}
}
