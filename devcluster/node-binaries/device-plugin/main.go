// A device plugin whose GPUs are not there: each is a number that the scheduler counts, and containers that get one are
// told to compute on the CPU. Arguments: the resource's name and how many there are.
package main

import (
	"context"
	"os"
	"strconv"

	"k8s.io/klog/v2"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	plugin "k8s.io/kubernetes/pkg/kubelet/cm/devicemanager/plugin/v1beta1"
)

const socket = pluginapi.DevicePluginPath + "stand-ins.sock"

func allocate(request *pluginapi.AllocateRequest, _ map[string]*pluginapi.Device) (*pluginapi.AllocateResponse, error) {
	answer := &pluginapi.AllocateResponse{}
	for range request.ContainerRequests {
		container := &pluginapi.ContainerAllocateResponse{Envs: map[string]string{"FINETUNE_DEVICE": "cpu"}}
		answer.ContainerResponses = append(answer.ContainerResponses, container)
	}
	return answer, nil
}

func devices(count int) []*pluginapi.Device {
	all := []*pluginapi.Device{}
	for number := range count {
		all = append(all, &pluginapi.Device{ID: strconv.Itoa(number), Health: pluginapi.Healthy})
	}
	return all
}

func main() {
	ctx, logger := context.Background(), klog.Background()
	resource := os.Args[1]
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		klog.Fatalf("argument 2: found %q, expected how many devices there are", os.Args[2])
	}
	stub := plugin.NewDevicePluginStub(logger, devices(count), socket, resource, false, false)
	stub.SetAllocFunc(allocate)
	if err := stub.Start(ctx); err != nil {
		klog.Fatalf("cannot serve on %s: %v", socket, err)
	}
	if err := stub.Register(ctx, pluginapi.KubeletSocket, resource, pluginapi.DevicePluginPath); err != nil {
		klog.Fatalf("cannot register with the kubelet at %s: %v", pluginapi.KubeletSocket, err)
	}
	// Registers again whenever the kubelet has been restarted; returns never.
	stub.Watch(ctx, pluginapi.KubeletSocket, resource, pluginapi.DevicePluginPath)
}
