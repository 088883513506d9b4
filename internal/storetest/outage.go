package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// cutOff lets the processes compete while their connections are cut at random: before a request, after it, before and
// after its reply.
func (f *fleet) cutOff(ctx context.Context) error {
	proxy, err := NewProxy("", f.server.Address)
	if err != nil {
		return err
	}
	defer func() { _ = proxy.Close() }()
	f.place.Address = proxy.Addr()
	nodes, err := f.openAll(ctx)
	if err != nil {
		return err
	}
	const oneOf = 12
	proxy.Plan(Randomly(rand.New(rand.NewPCG(f.random.Uint64(), 0)), oneOf))
	err = f.compete(ctx, nodes)
	proxy.Plan(nil)
	_, f.report.Cuts = proxy.Requests()
	if err != nil {
		return err
	}
	if f.report.Cuts == 0 {
		return fmt.Errorf("no connection was cut: is Place.Address where the store connects to?")
	}
	return f.afterOutage(ctx, nodes)
}

// restarted lets the processes compete while the server is restarted.
func (f *fleet) restarted(ctx context.Context) error {
	nodes, err := f.openAll(ctx)
	if err != nil {
		return err
	}
	restarts, over := f.moments(f.Restarts), make(chan error, 1)
	f.progress = make(chan struct{}, 1)
	competing, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer close(over)
		for _, at := range restarts {
			if !f.granted(competing, at) {
				return
			}
			if err := f.server.Restart(); err != nil {
				over <- fmt.Errorf("the server was not restarted: %w", err)
				return
			}
			f.report.Restarts++
		}
	}()
	err = f.compete(ctx, nodes)
	stop()
	if restartErr := <-over; restartErr != nil {
		return restartErr
	}
	if err != nil {
		return err
	}
	if f.report.Restarts == 0 {
		return fmt.Errorf("the server was not restarted: too little was acknowledged")
	}
	return f.afterOutage(ctx, nodes)
}

// compete has every process reserve and commit until it is refused.
func (f *fleet) compete(ctx context.Context, nodes []*node) (err error) {
	f.report.Shares, err = f.drain(ctx, nodes, true)
	return err
}

// granted waits until so many grants were acknowledged.
func (f *fleet) granted(ctx context.Context, n int64) bool {
	for {
		f.mu.Lock()
		enough := f.told.Granted >= n
		f.mu.Unlock()
		if enough {
			return true
		}
		select {
		case <-f.progress:
		case <-ctx.Done():
			return false
		}
	}
}

// afterOutage has everything saved that could not be saved, which takes back what nobody knew to be granted, and the rest
// of the quota used up. As much must have been granted then as it admits, and no more.
func (f *fleet) afterOutage(ctx context.Context, nodes []*node) error {
	if err := f.each(nodes, func(_ int, n *node) error {
		_, err := n.do(ctx, order{Do: "flush"}, f.hear)
		return err
	}); err != nil {
		return err
	}
	rest, err := f.drain(ctx, nodes, false)
	if err != nil {
		return err
	}
	for i, n := range rest {
		f.report.Shares[i] += n
	}
	return f.usedUp(ctx, nodes)
}
