package logrotate

import (
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Logs returns the log file of each running container of the pods, by container id. podLogs is the KubeletConfiguration's
// podLogsDir. A pod's statuses are as a kubelet writes them; its restart count is the number in the log's name.
func Logs(podLogs string, pods []corev1.Pod) map[string]string {
	logs := map[string]string{}
	for i := range pods {
		pod := &pods[i]
		dir := filepath.Join(podLogs, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
		for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for _, s := range statuses {
				_, id, known := strings.Cut(s.ContainerID, "://")
				if s.State.Running != nil && known {
					logs[id] = filepath.Join(dir, s.Name, strconv.Itoa(int(s.RestartCount))+".log")
				}
			}
		}
	}
	return logs
}
