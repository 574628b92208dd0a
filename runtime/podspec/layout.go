package podspec

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/garbage/marker"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// PathKind says what must be at a HostPath.
type PathKind int

const (
	// MakeDir: a directory; made with its parents if it is missing. An existing one is left as it is, unless
	// HostPath.Force.
	MakeDir PathKind = iota
	// MakeFile: a regular file; made empty if it is missing, in a directory that exists.
	MakeFile
	// WriteFile: a regular file with exactly Content and Mode; rewritten in place if it differs, never by a rename:
	// containers that run have the file itself mounted.
	WriteFile
	// MountTmpfs: a directory with a tmpfs of Size bytes (0: the kernel's default) mounted on it, unless one is there.
	MountTmpfs
	// MountHugePages: a directory with a hugetlbfs of pages of PageSize bytes mounted on it, unless one is there.
	MountHugePages
	// BindSubPath: SubPath of the directory Volume, bound to Path, unless it is there already. A link never leads out of
	// Volume. What is missing of SubPath is made as directories with the mode of Volume.
	BindSubPath
	// NeedDir, NeedFile, NeedSocket, NeedCharDevice, NeedBlockDevice: it is there already, and of that type.
	NeedDir
	NeedFile
	NeedSocket
	NeedCharDevice
	NeedBlockDevice
)

// HostPath is one thing that must be on the host before a sandbox or container starts.
type HostPath struct {
	Path string
	Kind PathKind
	// Mode is the final one, whatever the umask; of a directory's missing parents too.
	Mode fs.FileMode
	// Force sets Mode and Group on a directory that exists already.
	Force   bool
	Group   *int64 // owner group; nil leaves it
	Content []byte
	Size    int64
	// PageSize is for MountHugePages, in bytes.
	PageSize int64
	// Volume and SubPath are for BindSubPath: an absolute path, and one below it.
	Volume, SubPath string
	// Field is what of the manifest asks for it, for messages; "" for what every pod has.
	Field string
}

// Layout is what the pod as a whole needs, in the order in which to make it, before its sandbox. What lies below
// PodDir and LogDir goes away with the pod; hostPaths stay.
func Layout(p *manifest.StaticPod, n Node) []HostPath {
	dir := PodDir(p.UID, n)
	mark := marker.Encode(marker.Pod{Instance: n.Instance, Namespace: p.Pod.Namespace, Name: p.Pod.Name, UID: p.UID})
	out := []HostPath{
		{Path: dir, Mode: 0o750},
		{Path: filepath.Join(dir, marker.Name), Kind: WriteFile, Mode: 0o600, Content: mark}, // by which it is found again
		{Path: LogDir(p, n), Mode: 0o755},
		{Path: filepath.Join(dir, "volumes"), Mode: 0o750},
		{Path: filepath.Join(dir, "plugins"), Mode: 0o750},
	}
	for i := range p.Pod.Spec.Volumes {
		v := &p.Pod.Spec.Volumes[i]
		field := fmt.Sprintf("spec.volumes[%d] %s", i, v.Name)
		switch {
		case v.HostPath != nil:
			if h, ok := hostPathEntry(v.HostPath, field); ok {
				out = append(out, h)
			}
		case v.EmptyDir != nil:
			out = append(out, emptyDir(p, v, n, field)...)
		case v.DownwardAPI != nil:
			root := volumeDir(p, "downward-api", v.Name, n)
			out = append(out, volumeRoot(root, p.Pod, field))
			out = append(out, downwardFiles(p, root, v.DownwardAPI.Items, *v.DownwardAPI.DefaultMode, n, field)...)
		case v.Projected != nil:
			root := volumeDir(p, "projected", v.Name, n)
			out = append(out, volumeRoot(root, p.Pod, field))
			for _, s := range v.Projected.Sources {
				if s.DownwardAPI != nil {
					out = append(out, downwardFiles(p, root, s.DownwardAPI.Items, *v.Projected.DefaultMode, n, field)...)
				}
			}
		}
	}
	return out
}

// ContainerLayout is what one attempt of a container needs on top, before it is created. It fails as Container does.
func ContainerLayout(p *manifest.StaticPod, c *corev1.Container, a Attempt, n Node) ([]HostPath, error) {
	out := []HostPath{{Path: filepath.Join(LogDir(p, n), c.Name), Mode: 0o755}}
	if mountsHosts(c) {
		out = append(out, HostPath{Path: etcHosts(p, n), Kind: WriteFile, Mode: 0o644, Content: hostsFile(p.Pod, n, a.PodIPs)})
	}
	if path := TerminationLog(p, c, a.Number, n); path != "" {
		out = append(out,
			HostPath{Path: filepath.Dir(path), Mode: 0o750},
			HostPath{Path: path, Kind: WriteFile, Mode: 0o666}) // whichever user the container runs as
	}
	env, err := environment(p, c, a, n)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	parts, err := subPathEntries(p, c, env, n)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	return append(out, parts...), nil
}

// hostPathEntry is what a hostPath's type asks for. The modes are the kubelet's.
func hostPathEntry(h *corev1.HostPathVolumeSource, field string) (HostPath, bool) {
	out := HostPath{Path: h.Path, Field: field}
	switch *h.Type {
	case corev1.HostPathDirectoryOrCreate:
		out.Kind, out.Mode = MakeDir, 0o755
	case corev1.HostPathFileOrCreate:
		out.Kind, out.Mode = MakeFile, 0o644
	case corev1.HostPathDirectory:
		out.Kind = NeedDir
	case corev1.HostPathFile:
		out.Kind = NeedFile
	case corev1.HostPathSocket:
		out.Kind = NeedSocket
	case corev1.HostPathCharDev:
		out.Kind = NeedCharDevice
	case corev1.HostPathBlockDev:
		out.Kind = NeedBlockDevice
	default: // no check; the runtime makes a missing directory
		return HostPath{}, false
	}
	return out, true
}

// emptyDir is open to every user, since containers of the pod may run as several.
func emptyDir(p *manifest.StaticPod, v *corev1.Volume, n Node, field string) []HostPath {
	dir := HostPath{Path: volumeDir(p, "empty-dir", v.Name, n), Mode: 0o777, Force: true, Field: field}
	if g := p.Pod.Spec.SecurityContext.FSGroup; g != nil {
		dir.Group, dir.Mode = g, 0o777|fs.ModeSetgid
	}
	if v.EmptyDir.Medium == corev1.StorageMediumMemory {
		dir.Kind = MountTmpfs
		dir.Size = n.MemoryCapacity
		limits := []int64{memoryLimit(p.Pod)}
		if v.EmptyDir.SizeLimit != nil {
			limits = append(limits, v.EmptyDir.SizeLimit.Value())
		}
		for _, limit := range limits {
			if limit > 0 && (dir.Size == 0 || limit < dir.Size) {
				dir.Size = limit
			}
		}
	}
	if m := string(v.EmptyDir.Medium); strings.HasPrefix(m, string(corev1.StorageMediumHugePages)) {
		dir.Kind, dir.PageSize = MountHugePages, pageSize(v.EmptyDir.Medium, p.Pod)
	}
	// A kubelet that adopts the pod takes the marker as the sign that the volume is set up.
	marker := filepath.Join(PodDir(p.UID, n), "plugins", "kubernetes.io~empty-dir", v.Name)
	return []HostPath{dir, {Path: marker, Mode: 0o750}, {Path: filepath.Join(marker, "ready"), Kind: WriteFile, Mode: 0o644}}
}

// pageSize is that of an emptyDir's huge pages, in bytes: the medium's, else the one that the pod's containers request.
func pageSize(m corev1.StorageMedium, pod *corev1.Pod) int64 {
	size, named := manifest.HugePage(string(m))
	if sizes := manifest.HugePageSizes(pod); !named && len(sizes) > 0 {
		return sizes[0] // the only one: a manifest with more is invalid
	}
	return size
}

// memoryLimit is what the pod's containers may use together; 0 when nothing limits them.
func memoryLimit(pod *corev1.Pod) int64 {
	if !limitedAsWhole(pod, corev1.ResourceMemory) {
		return 0
	}
	limits := withOverhead(pod, podLimits(pod), true)
	return limits.Memory().Value()
}

func volumeRoot(path string, pod *corev1.Pod, field string) HostPath {
	return HostPath{Path: path, Mode: 0o755, Group: pod.Spec.SecurityContext.FSGroup, Force: true, Field: field}
}

// downwardFiles are plain files: their content cannot change during the life of a static pod, which any edit replaces.
func downwardFiles(p *manifest.StaticPod, root string, items []corev1.DownwardAPIVolumeFile, mode int32, n Node, field string) []HostPath {
	var out []HostPath
	for _, item := range items {
		var text string
		if item.FieldRef != nil {
			text, _ = fieldValue(p, item.FieldRef.FieldPath, n, nil) // validated when the manifest was read
		} else {
			text, _ = resourceValue(p.Pod, nil, item.ResourceFieldRef, n)
		}
		m := mode
		if item.Mode != nil {
			m = *item.Mode
		}
		if p.Pod.Spec.SecurityContext.FSGroup != nil {
			m |= 0o440 // the group is there to read it
		}
		path := filepath.Join(root, item.Path)
		if dir := filepath.Dir(path); dir != root {
			out = append(out, HostPath{Path: dir, Mode: 0o755, Field: field})
		}
		out = append(out, HostPath{Path: path, Kind: WriteFile, Mode: fs.FileMode(m), Content: []byte(text),
			Group: p.Pod.Spec.SecurityContext.FSGroup, Field: field})
	}
	return out
}
