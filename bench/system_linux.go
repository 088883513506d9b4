package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

func syncDirectory(dir *os.File) error { return dir.Sync() }

// resident is how much memory of this process is in use, in bytes.
func resident() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("no resident size in /proc/self/status")
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(info) {
		name, value, _ := strings.Cut(string(line), ":")
		if strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "Linux"
	}
	return "Linux " + strings.TrimSpace(string(release))
}

func fileSystem(dir string) string {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return "unknown"
	}
	names := map[int64]string{0xEF53: "ext2/3/4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x01021994: "tmpfs",
		0x794C7630: "overlayfs", 0x2FC12FC1: "zfs", 0x6969: "nfs"}
	if name, known := names[int64(stat.Type)]; known { //nolint:unconvert // its size differs between architectures
		return name
	}
	return fmt.Sprintf("%#x", stat.Type)
}

// endWithParent are the attributes of a process that ends with this one.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// notAsRoot are the attributes of a process that ends with this one and does not run as root.
func notAsRoot() *syscall.SysProcAttr {
	attributes := endWithParent()
	if uid, gid, err := somebody(); os.Geteuid() == 0 && err == nil {
		attributes.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	return attributes
}

// giveAway makes a directory that of whom notAsRoot runs a process as.
func giveAway(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := somebody()
	if err != nil {
		return err
	}
	return os.Chown(dir, int(uid), int(gid))
}

func somebody() (uid, gid uint32, err error) {
	for _, name := range []string{"postgres", "nobody"} {
		found, unknown := user.Lookup(name)
		if unknown != nil {
			continue
		}
		u, err1 := strconv.ParseUint(found.Uid, 10, 32)
		g, err2 := strconv.ParseUint(found.Gid, 10, 32)
		return uint32(u), uint32(g), errors.Join(err1, err2)
	}
	return 0, 0, errors.New("there is no user postgres or nobody to run a server as")
}
