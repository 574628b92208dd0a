// Package event keeps what has happened to the pods of this node, for `slipway events` and for the Kubernetes API.
package event

import "time"

// The reasons are the kubelet's, so that people and alerts know them. Kubernetes v1.36.3 pkg/kubelet/events/event.go.
const (
	Pulling             = "Pulling"
	Pulled              = "Pulled"
	FailedToPull        = "Failed"
	BackOffPullImage    = "BackOff"
	Created             = "Created"
	Started             = "Started"
	Killing             = "Killing"
	FailedToCreate      = "Failed"
	BackOffRestart      = "BackOff"
	Unhealthy           = "Unhealthy"
	FailedSandbox       = "FailedCreatePodSandBox"
	SandboxChanged      = "SandboxChanged"
	FailedPostStartHook = "FailedPostStartHook"
	FailedPreStopHook   = "FailedPreStopHook"
	ExceededGracePeriod = "ExceededGracePeriod"
	DeadlineExceeded    = "DeadlineExceeded"
	FreedDiskSpace      = "ImageGCSucceeded"
	FailedToFreeSpace   = "FreeDiskSpaceFailed"

	// These the kubelet does not have.
	Refused    = "ManifestRefused" // a manifest that is not taken
	RolledBack = "RolledBack"      // a version that did not become ready was replaced by the last one that was
	Restarting = "Restarting"      // somebody asked, or a watched file has changed
	Waiting    = "Waiting"         // for another pod
	Renewed    = "CertificateRenewed"
	NotRenewed = "CertificateNotRenewed" // although it is due
)

// The types of events are the API's.
const (
	Normal  = "Normal"
	Warning = "Warning"
)

// Event is one thing that has happened, once or several times. It is a value: nobody changes one that was handed out.
type Event struct {
	Number    uint64    `json:"number"` // grows with every event that is recorded, also with a repetition
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
	Count     int       `json:"count"`
	Pod       string    `json:"pod,omitempty"` // full name, "namespace/name"; empty for the node as a whole
	UID       string    `json:"uid,omitempty"` // of the pod
	Container string    `json:"container,omitempty"`
	Type      string    `json:"type"`
	Reason    string    `json:"reason"`
	Message   string    `json:"message"` // one line, without secrets
}
