package redistest

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const slots = 16384

// A Cluster is three masters that share the slots.
type Cluster struct {
	tb    testing.TB
	Nodes []*Server
}

// StartCluster starts one.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	const masters = 3
	c := &Cluster{tb: tb}
	ctx := context.Background()
	var buses []int
	for range masters {
		bus := freePort(tb)
		buses = append(buses, bus)
		c.Nodes = append(c.Nodes, Start(tb, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus),
			"--cluster-node-timeout", "2000"))
	}
	for i, node := range c.Nodes {
		client := node.Client()
		Must(tb, client.ClusterAddSlotsRange(ctx, i*slots/masters, (i+1)*slots/masters-1).Err())
		if i > 0 {
			Must(tb, client.Do(ctx, "cluster", "meet", "127.0.0.1", c.Nodes[0].port, buses[0]).Err())
		}
	}
	for _, node := range c.Nodes {
		client := node.Client()
		Eventually(tb, "the nodes are one cluster", func() bool {
			info, err := client.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, "cluster_known_nodes:"+strconv.Itoa(masters))
		})
	}
	return c
}

// Addr returns the addresses of the nodes, with commas between them.
func (c *Cluster) Addr() string {
	var addrs []string
	for _, node := range c.Nodes {
		addrs = append(addrs, node.Addr())
	}
	return strings.Join(addrs, ",")
}

// Client returns a client that is closed at the end of the test.
func (c *Cluster) Client() *redis.ClusterClient {
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(c.Addr(), ",")})
	c.tb.Cleanup(func() { _ = client.Close() })
	return client
}
