//go:build !linux

package memory

func letGo() {}
