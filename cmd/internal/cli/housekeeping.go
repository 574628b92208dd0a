package cli

import (
	"cmp"
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/runtime/cgroup"
	"github.com/slipway-k8s/slipway/runtime/containerd"
	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/garbage"
	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/logrotate"
	"github.com/slipway-k8s/slipway/runtime/metrics"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// limits are what the KubeletConfiguration says about disk space and pulls.
type limits struct {
	logs   logrotate.Policy
	images garbage.Policy
	pulls  int // images at the same time; 0 is no limit
}

func limitsOf(c *kubeletv1beta1.KubeletConfiguration) (limits, error) {
	var l limits
	var errs [2]error
	l.logs, errs[0] = logrotate.ParsePolicy(c.ContainerLogMaxSize, c.ContainerLogMaxFiles, c.ContainerLogMaxWorkers)
	l.images, errs[1] = garbage.ParsePolicy(c.ImageGCHighThresholdPercent, c.ImageGCLowThresholdPercent, c.ImageMinimumGCAge.Duration, c.ImageMaximumGCAge.Duration)
	switch {
	case c.SerializeImagePulls == nil || *c.SerializeImagePulls: // the kubelet's default
		l.pulls = 1
	case c.MaxParallelImagePulls != nil:
		l.pulls = int(*c.MaxParallelImagePulls)
	}
	return l, errors.Join(errs[:]...)
}

func podLogs(c *kubeletv1beta1.KubeletConfiguration, paths config.Paths) string {
	return cmp.Or(c.PodLogsDir, paths.PodLogs)
}

// rotator keeps the logs of the board's pods small.
func (s *supervision) rotator(client *cri.Client, counts *metrics.Metrics) *logrotate.Rotator {
	logs := runningLogs{board: s.board, dir: podLogs(s.kubelet, s.paths)}
	return &logrotate.Rotator{
		Policy: s.limits.logs, Log: s.log, Now: time.Now,
		Reopen: func(ctx context.Context, id string) error {
			err := client.ReopenContainerLog(ctx, id)
			counts.LogRotated(err)
			return err
		},
		Running: func(context.Context) (map[string]string, error) { return logs.now(), nil },
	}
}

// runningLogs are the logs of the board's running containers. They are asked for every second, and looked up anew only when
// the board has changed: with 200 pods in which nothing happens that would be most of what the supervisor does. One
// goroutine may use it.
type runningLogs struct {
	board   *status.Board
	dir     string // of the pods' logs
	last    map[string]string
	changed <-chan struct{} // closed once last is old; nil before the first look
}

// now returns the log file of each running container by container id. The map must not be changed.
func (l *runningLogs) now() map[string]string {
	if l.changed != nil {
		select {
		case <-l.changed:
		default:
			return l.last
		}
	}
	list, _, changed := l.board.Pods()
	l.last, l.changed = logrotate.Logs(l.dir, list.Items), changed
	return l.last
}

// collector removes unused images and what pods have left, once every pod is known.
func (s *supervision) collector(client *cri.Client, node podspec.Node, tree *cgroup.Tree, store *lastgood.Store, counts *metrics.Metrics, known <-chan struct{}) *garbage.Collector {
	sizes := map[string]int64{} // of the images as listed last
	remover := garbage.Remover{Node: node, Cgroups: tree}
	return &garbage.Collector{
		Images: &garbage.Images{
			Policy: s.limits.images, Usage: garbage.FileSystem, Events: s.events,
			Used: func(ctx context.Context) ([]string, error) { return containerd.UsedImages(ctx, client) },
			List: func(ctx context.Context) ([]garbage.Image, error) {
				listed, err := containerd.Images(ctx, client)
				images := make([]garbage.Image, 0, len(listed))
				clear(sizes)
				for _, i := range listed {
					images = append(images, garbage.Image(i))
					sizes[i.ID] = i.Size
				}
				return images, err
			},
			Remove: func(ctx context.Context, id string) error {
				err := client.RemoveImage(ctx, id)
				if err != nil {
					counts.ImagesCollected(0, 0, err)
				} else {
					counts.ImagesCollected(1, sizes[id], nil)
				}
				return err
			},
			Wanted: func(context.Context) ([]string, error) { return s.wantedImages(store, known) },
			Dir:    func(ctx context.Context) (string, error) { return imageDir(ctx, client) },
		},
		Orphans: &garbage.Orphans{
			Node: node, Remove: remover.Remove,
			Known: func(ctx context.Context) (garbage.Known, error) { return s.knownPods(ctx, client, known) },
		},
		Log: s.log, Now: time.Now,
	}
}

// wantedImages are those that the manifests name, and those of the versions that would be returned to.
func (s *supervision) wantedImages(store *lastgood.Store, known <-chan struct{}) ([]string, error) {
	list, err := s.settled(known)
	if err != nil {
		return nil, err
	}
	pods := list.Items
	names, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		record, err := store.Load(name)
		if err != nil {
			return nil, err
		}
		if record.Good != nil {
			pods = append(pods, *record.Good.Pod)
		}
	}
	return garbage.ImagesOf(pods), nil
}

// settled is what the board shows, once every pod has been looked at and as long as every manifest can be told.
func (s *supervision) settled(known <-chan struct{}) (*corev1.PodList, error) {
	select {
	case <-known:
	default:
		return nil, garbage.ErrUnknown
	}
	list, problems, _ := s.board.Pods()
	for _, p := range problems {
		if p.Pod == "" {
			return nil, garbage.ErrUnknown // it may be any pod's
		}
	}
	return list, nil
}

// knownPods are the pods that are wanted, worked on or in the runtime.
func (s *supervision) knownPods(ctx context.Context, client *cri.Client, known <-chan struct{}) (garbage.Known, error) {
	list, err := s.settled(known)
	if err != nil {
		return garbage.Known{}, err
	}
	there, err := client.Inventory(ctx)
	if err != nil {
		return garbage.Known{}, err
	}
	k := garbage.Known{Pods: there.Pods, Containers: there.Containers}
	for i := range list.Items {
		k.Pods = append(k.Pods, string(list.Items[i].UID))
	}
	_, problems, _ := s.board.Pods()
	for _, p := range problems {
		k.Names = append(k.Names, p.Pod)
	}
	return k, nil
}

// imageDir is where the runtime unpacks images.
func imageDir(ctx context.Context, client *cri.Client) (string, error) {
	systems, err := client.ImageFsInfo(ctx)
	if err != nil {
		return "", err
	}
	for _, fs := range systems {
		if dir := fs.GetFsId().GetMountpoint(); dir != "" {
			return dir, nil
		}
	}
	return "", errors.New("the container runtime does not say where its images are")
}
