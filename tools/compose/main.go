// Command compose reads compose files as Docker Compose does (the reference loader, its schema, interpolation and
// references between services) and checks that every file they bind or configure exists.
//
// It prints the names of the services and ends with 0, or with 1 and the reason.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE...")
		os.Exit(2)
	}
	for _, path := range os.Args[1:] {
		services, err := check(path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
		fmt.Printf("%s: %s\n", path, strings.Join(services, ", "))
	}
}

// check loads one file by itself, without the caller's environment, and returns its services in order.
func check(path string) ([]string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	options, err := cli.NewProjectOptions([]string{absolute},
		cli.WithName("check"),
		cli.WithWorkingDirectory(filepath.Dir(absolute)),
		cli.WithProfiles([]string{"*"}),
		cli.WithConsistency(true),
	)
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	return project.ServiceNames(), filesExist(project)
}

// filesExist says which file or folder of this repository is named but missing.
func filesExist(project *types.Project) error {
	for name, config := range project.Configs {
		if err := exists("configs."+name+".file", config.File); err != nil {
			return err
		}
	}
	for _, service := range project.Services {
		for _, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			if err := exists("services."+service.Name+".volumes", volume.Source); err != nil {
				return err
			}
		}
		if service.Build == nil {
			continue
		}
		dockerfile := service.Build.Dockerfile
		if !filepath.IsAbs(dockerfile) {
			dockerfile = filepath.Join(service.Build.Context, dockerfile)
		}
		if err := exists("services."+service.Name+".build.dockerfile", dockerfile); err != nil {
			return err
		}
	}
	return nil
}

func exists(key, path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
