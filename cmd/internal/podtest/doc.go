// Package podtest gives a test a node of its own: a containerd, a manifest directory and slipway supervise.
//
// It is for the build tags e2e and bench, needs root, runc and what make build programs puts into bin, and is meant for
// several test processes at once on one machine: each node has its own directory (root, state and socket of containerd,
// logs, manifests), its own cgroup above those of its pods, and its own instance of slipway.
//
//	func TestKilledContainerComesBack(t *testing.T) {
//		n := podtest.New(t, podtest.Options{})
//		n.Supervise()
//		n.Put("web.yaml", podtest.Pod("web").Container("main", "print:hello", "forever").YAML())
//		first := n.WaitRunning("web", "main", 10*time.Second)
//		n.KillContainer(first.ID)
//		n.WaitFor("the second attempt", 10*time.Second, func() (bool, string) {
//			c, found := n.Running("web", "main")
//			return found && c.Attempt == 1, fmt.Sprint(n.Containers("web"))
//		})
//	}
//
// Containers run the image slipway.dev/subject:1 unless the manifest says otherwise; testdata/images/subject/main.go
// lists what its arguments do. Pods are on the host's network unless they are built with PodNetwork, which needs a node
// with Options.CNI.
//
// At the end of the test the pods are removed, containerd and the supervisor are ended, and the test fails for what is
// left. What a test process that was killed has left is taken away by the next one's New. SLIPWAY_TEST_PROGRAM names
// another program to test than bin/slipway.
package podtest
