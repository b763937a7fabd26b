// swift-tools-version: 6.2
import PackageDescription

// `swift test -c release` cannot link a static runtime, so the static one is asked for by name:
// TREERING_STATIC=1 swift build -c release (what mount-scripts/install and try do).
let staticRuntime = Context.environment["TREERING_STATIC"] == "1"

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    // The simulated device is no part of what is installed: it is there in debug, and where `-Xswiftc -DSIMULATION` asks for it.
    .define("SIMULATION", .when(configuration: .debug)),
    .treatAllWarnings(as: .error),
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

let package = Package(
    name: "treering",
    products: [.executable(name: "treering", targets: ["treering"])],
    traits: [
        .trait(name: "Liburing", description: "The io_uring engine; without it everything runs on pread and pwrite."),
        .default(enabledTraits: ["Liburing"]),
    ],
    targets: [
        .systemLibrary(name: "CFuse3"),
        .systemLibrary(name: "CUring"),
        .systemLibrary(name: "CIsal"),
        .systemLibrary(name: "CLinux"),
        .target(
            name: "Treering",
            dependencies: [
                "CFuse3", "CIsal", "CLinux",
                .target(name: "CUring", condition: .when(traits: ["Liburing"])),
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "treering",
            dependencies: ["Treering"],
            swiftSettings: strict,
            linkerSettings: staticRuntime ? [.unsafeFlags(["-static-stdlib"])] : []),
        .testTarget(name: "Simulation", dependencies: ["Treering"], swiftSettings: strict),
        .testTarget(name: "TreeringTests", dependencies: ["Treering"], swiftSettings: strict),
        .testTarget(name: "TidyTests", dependencies: [], swiftSettings: strict),
    ]
)
